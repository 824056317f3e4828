"""Train a model: `python train.py --config configs/FAMILY.py:WHAT --workdir DIR [--config.a.b=x]`.

A stopped run goes on from its last checkpoint when the same command is given again.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from deit_jax.compilation_cache import keep_compiled_programs
from deit_jax.config.command_line import explain_flag_error, unknown_keys

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py:WHAT to train.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of this run; made if it is missing.")
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Continue a run although its configuration has changed."
)


def _fail(problems: list[str]) -> None:
    """Print every problem on a line of its own and leave with exit code 2."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line; say what is wrong with it in a sentence instead of a traceback."""
    if problems := unknown_keys(arguments):
        _fail(problems)
    try:
        rest = flags.FLAGS(arguments)
        missing = [flag for flag in ("config", "workdir") if not flags.FLAGS[flag].value]
        if missing:
            _fail([f"--{flag} is missing. Usage: {__doc__.splitlines()[0]}" for flag in missing])
        # A config file that could not be read says so when it is first looked into.
        _CONFIG.value.keys()
        return rest
    except (flags.Error, AttributeError, OSError, ValueError) as error:
        _fail([explain_flag_error(error)])
        raise


def main(arguments: list[str]) -> None:
    """Check everything, then train."""
    if len(arguments) > 1:
        _fail([f"{arguments[1]!r} is no flag; write --config.key=value, in one piece."])
    # Libraries report every file they write; warnings are enough unless --verbosity asks.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported late: a typo should be answered before JAX has started.
    keep_compiled_programs()
    import jax

    from deit_jax.config.reference import apply_reference
    from deit_jax.config.validate import validate
    from deit_jax.devices import check_devices
    from deit_jax.training.loop import TrainingStopped, train

    overridden = config_flags.get_override_values(flags.FLAGS["config"])
    if problems := apply_reference(_CONFIG.value, overridden):
        _fail(problems)
    try:
        check_devices()
    except ValueError as error:
        _fail([str(error)])
    if problems := validate(_CONFIG.value, device_count=jax.device_count()):
        _fail(problems)
    try:
        train(_CONFIG.value, _WORKDIR.value, allow_config_change=_ALLOW_CHANGE.value)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if flags.FLAGS.verbosity > 0:
            raise
        _fail([str(error)])
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
