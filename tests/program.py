"""Running `train.py` as a user does: in a process of its own, or, much faster, in this one."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys

from absl import logging
from absl.testing import flagsaver

ROOT = pathlib.Path(__file__).parents[1]
_ENVIRONMENT = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# Fields that measure time, which differ between runs that compute the same.
TIMING = {"images_per_second", "input_wait"}


# As from a terminal: a job in the background of a shell ignores SIGINT, and what it starts too.
_LAUNCH = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(experiment, workdir, *flags, devices=1, group=False, code=None, folder=ROOT):
    """Start `train.py`, or code in its place, perhaps as a group of processes; returns it."""
    given = [str(ROOT / "train.py")] if code is None else ["-c", code]
    given += [f"--config={experiment}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, *given],
        start_new_session=group,
        cwd=folder,
        env={**_ENVIRONMENT, "JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(experiment, workdir, *flags, devices=1, folder=ROOT):
    """Run `train.py` to its end; returns (exit code, everything it printed)."""
    process = start(experiment, workdir, *flags, devices=devices, folder=folder)
    output, _ = process.communicate(timeout=280)
    return process.returncode, output


def run_here(experiment, workdir, *flags):
    """Run `train.py` to its end in this process; returns (exit code, everything it printed)."""
    # Grain defines flags of its own, which would be forgotten with the values of this run.
    import grain  # noqa: F401

    from deit_jax.cli import train

    words = ["train.py", f"--config={experiment}", f"--workdir={workdir}", *flags]
    printed, code, verbosity = io.StringIO(), 0, logging.get_verbosity()
    with (
        flagsaver.flagsaver(),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            train.run_training(train.parse_flags(words))
        except SystemExit as end:
            code = end.code
        finally:
            logging.set_verbosity(verbosity)
    return code, printed.getvalue()


def metrics(workdir):
    """Lines of `metrics.jsonl` without what measures time."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines]


def result(workdir):
    """Contents of `result.json`."""
    return json.loads((pathlib.Path(workdir) / "result.json").read_text())
