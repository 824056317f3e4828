"""Running a sweep here: one run after the other, each in a process of its own."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from deit_jax.sweeps.plan import PROGRAM, PlannedRun

Say = Callable[[str], None]


def run_all(runs: Sequence[PlannedRun], say: Say) -> list[str]:
    """Run what has not finished, in order; a run that fails does not stop the others.

    Each is `train.py` with its own directory, so a sweep that was stopped goes on with the same
    command: finished runs are skipped, a run that was interrupted continues.

    Args:
        runs: from `plan`.
        say: what writes a line.

    Returns:
        Names of the runs that failed.

    Raises:
        FileNotFoundError: there is no train.py in the current directory.
        KeyboardInterrupt: the user ends the sweep, and with it the run.
    """
    if not Path(PROGRAM).is_file():
        raise FileNotFoundError(f"There is no {PROGRAM} here; start the sweep where it lies.")
    failed = []
    for number, run in enumerate(runs, start=1):
        heading = f"[{number} of {len(runs)}] {run.name}"
        if run.finished:
            if changed := changes(run):
                failed.append(run.name)
                say(f"{heading}: FAILED: a finished run with other values is there ({changed}).")
            else:
                say(f"{heading}: finished before, skipped.")
            continue
        say(f"{heading}: {run.experiment} -> {run.workdir}")
        code = subprocess.run(run.command()).returncode
        # 128 + SIGINT: it was the user, who wants the sweep to end too.
        if code in (130, -2):
            raise KeyboardInterrupt
        if code:
            failed.append(run.name)
            say(f"{heading}: FAILED with exit code {code}; the sweep goes on.")
    return failed


def changes(run: PlannedRun) -> str:
    """Say in what the finished run in this directory differs from the planned one; "" if nothing.

    What decides only when something is read, shown or saved does not count.
    """
    # Imported when needed, since it starts JAX.
    from deit_jax.training.run_directory import config_changes

    changed = config_changes(run.workdir, run.config)
    return ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
