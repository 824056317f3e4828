"""Train a model: `python -m deit_jax train --config FILE.py:WHAT --workdir DIR [--config.a.b=x]`.

FILE.py is a path, or the name of a config file that comes with the project; a WHAT that it does not
have is answered with those that it has. A stopped run goes on from its last checkpoint when the
same command is given again.

Example:
  python -m deit_jax train --config configs/digits.py:none --workdir runs/none \\
      --config.schedule.epochs=200
"""

import functools
import logging as python_logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from deit_jax.compilation_cache import keep_compiled_programs
from deit_jax.config.command_line import (
    configure,
    expand_config,
    explain_flag_error,
    read_overrides,
)
from deit_jax.config.families import config_files
from deit_jax.config.reference_flags import answers
from deit_jax.files import print_any_name, sentence
from deit_jax.runs.checkpoints.orbax_loops import are_threads_left
from deit_jax.runs.interruption import Interrupted, Interruption, leave_at_once
from deit_jax.scale import membership

_PROGRAM = "train.py"
# Overrides are read here, not by config_flags: it looks for them in the command line it is given.
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py:WHAT to train.", sys_argv=[_PROGRAM]
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of this run; made if it is missing.")
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Continue a run although its configuration has changed."
)
# `membership.joined` reads these before all others; they are here for --help and against typos.
flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where those of a run meet.")
flags.DEFINE_integer("processes", None, "How many processes the run has.", lower_bound=1)
flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
flags.DEFINE_float("join_seconds", membership.JOIN_SECONDS, "How long they wait for each other.")


def start_training(words: Sequence[str], interruption: Interruption | None = None) -> NoReturn:
    """Train as the words behind `train.py` say, and end the process.

    Args:
        words: flags.
        interruption: what takes the signals of this process, installed before.
    """
    if {"--help", "-help", "-h"} & set(words):
        print(f"{__doc__}\nConfig files: {', '.join(config_files())}.\n")
        print(flags.FLAGS.module_help(__name__))
        print("\nTry --helpfull to get a list of all flags.")
        sys.exit(0)
    train = functools.partial(run_training, interruption=interruption)
    try:
        with membership.joined(_with_files(words), interruption):
            app.run(train, argv=[_PROGRAM, *words], flags_parser=parse_flags)
    except SystemExit as end:
        # Python would wait for them, five minutes.
        if are_threads_left():
            leave_at_once(end.code if isinstance(end.code, int) else int(bool(end.code)), "")
        raise
    raise AssertionError("app.run() ends the process")


def _with_files(words: Sequence[str]) -> list[str]:
    """Put what stands in the file of --flagfile in its place."""
    try:
        return flags.FLAGS.read_flags_from_files([_PROGRAM, *words], force_gnu=False)[1:]
    except flags.Error:
        # It is answered with all other mistakes.
        return list(words)


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line and configure; say what is wrong in a sentence, before JAX starts."""
    try:
        line = read_overrides(flags.FLAGS.read_flags_from_files(arguments, force_gnu=False))
        if problems := [*answers(line.rest[1:]), *line.problems]:
            _fail(problems)
        rest = flags.FLAGS(expand_config(line.rest))
        missing = [flag for flag in ("config", "workdir") if not flags.FLAGS[flag].value]
        if missing:
            usage = (__doc__ or "").split("`")[1]
            _fail([f"--{' and --'.join(missing)} missing: {usage}."])
        if problems := configure(_CONFIG.value, line.overrides):
            _fail(problems)
        return rest
    except Exception as error:
        # Whatever a config file raises is its author's to mend.
        _fail([explain_flag_error(error)])


def run_training(arguments: list[str], interruption: Interruption | None = None) -> None:
    """Check everything, then train."""
    print_any_name()
    if len(arguments) > 1:
        _fail([f"{arguments[1]!r} is no flag; write --config.key=value, in one piece."])
    # Libraries report every file they write; warnings are enough unless --verbosity asks.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        # For whoever trains: no time, process and line of code before each.
        logging.get_absl_handler().setFormatter(_Sentence())
    # Imported late: a typo should be answered before JAX has started.
    keep_compiled_programs()
    import jax

    from deit_jax.config.validate import validate
    from deit_jax.data.open_file_limit import are_too_many_open, open_files_advice
    from deit_jax.devices import check_devices, out_of_memory
    from deit_jax.training.loop import train
    from deit_jax.training.skipped_steps import TrainingStopped

    try:
        membership.connect_devices()
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
            interruption=interruption,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if flags.FLAGS.verbosity > 0:
            raise
        _fail([open_files_advice() if are_too_many_open(error) else sentence(error)])
    except TrainingStopped as error:
        membership.leave(3, f"stopped: {error}")
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail([out_of_memory(error)])
    except Interrupted as error:
        if jax.process_count() == 1:
            # All is on disk: the scheduler's patience need not suffice for the readers as well.
            leave_at_once(error.code, str(error))
        if membership.is_first():
            print(error, file=sys.stderr)
        raise membership.Together(error.code) from None
    except KeyboardInterrupt:
        # Where the system has no POSIX signals.
        print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


class _Sentence(python_logging.Formatter):
    """A warning as commands write it."""

    def format(self, record: python_logging.LogRecord) -> str:
        """Return its level and what it says."""
        return f"{record.levelname.lower()}: {super().format(record)}"


def _fail(problems: Sequence[str]) -> NoReturn:
    """Print every problem on a line of its own and leave with exit code 2."""
    membership.leave(2, "\n".join(f"error: {problem}" for problem in problems))
