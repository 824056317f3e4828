"""Train a model: `python train.py --config configs/FAMILY.py:WHAT --workdir DIR [--config.a.b=x]`.

A stopped run goes on from its last checkpoint when the same command is given again.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

# First of all: a signal may come while libraries are loaded.
from deit_jax.runs.interruption import Interrupted, Interruption, leave_at_once  # isort: skip

# Reader processes import this file too.
_INTERRUPTION = Interruption.install() if __name__ == "__main__" else None

# ruff: noqa: E402
from absl import app, flags, logging
from ml_collections import config_flags

from deit_jax.compilation_cache import keep_compiled_programs
from deit_jax.config.command_line import (
    configure,
    expand_config,
    explain_flag_error,
    read_overrides,
)
from deit_jax.config.reference_flags import answers
from deit_jax.files import print_any_name, sentence

# Overrides are read here, not by config_flags: it looks for them in the command line it is given.
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py:WHAT to train.", sys_argv=["train.py"]
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of this run; made if it is missing.")
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Continue a run although its configuration has changed."
)


def _fail(problems: Sequence[str]) -> NoReturn:
    """Print every problem on a line of its own and leave with exit code 2."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line and configure; say what is wrong in a sentence, before JAX starts."""
    try:
        line = read_overrides(flags.FLAGS.read_flags_from_files(arguments, force_gnu=False))
        if problems := [*answers(line.rest[1:]), *line.problems]:
            _fail(problems)
        rest = flags.FLAGS(expand_config(line.rest))
        missing = [flag for flag in ("config", "workdir") if not flags.FLAGS[flag].value]
        if missing:
            _fail([f"--{flag} is missing. Usage: {__doc__.splitlines()[0]}" for flag in missing])
        if problems := configure(_CONFIG.value, line.overrides):
            _fail(problems)
        return rest
    except Exception as error:
        # Whatever a config file raises is its author's to mend.
        _fail([explain_flag_error(error)])


def main(arguments: list[str]) -> None:
    """Check everything, then train."""
    print_any_name()
    if len(arguments) > 1:
        _fail([f"{arguments[1]!r} is no flag; write --config.key=value, in one piece."])
    # Libraries report every file they write; warnings are enough unless --verbosity asks.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported late: a typo should be answered before JAX has started.
    keep_compiled_programs()
    import jax

    from deit_jax.config.validate import validate
    from deit_jax.data.open_file_limit import are_too_many_open, open_files_advice
    from deit_jax.devices import check_devices, out_of_memory
    from deit_jax.training.loop import train
    from deit_jax.training.skipped_steps import TrainingStopped

    try:
        check_devices()
    except ValueError as error:
        _fail([str(error)])
    if problems := validate(_CONFIG.value, device_count=jax.device_count()):
        _fail(problems)
    try:
        train(
            _CONFIG.value,
            _WORKDIR.value,
            allow_config_change=_ALLOW_CHANGE.value,
            interruption=_INTERRUPTION,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if flags.FLAGS.verbosity > 0:
            raise
        _fail([open_files_advice() if are_too_many_open(error) else sentence(error)])
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(3)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail([out_of_memory(error)])
    except Interrupted as error:
        if jax.process_count() == 1:
            # All is on disk: the scheduler's patience need not suffice for the readers as well.
            leave_at_once(error.code, str(error))
        print(error, file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        # Where the system has no POSIX signals.
        print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
