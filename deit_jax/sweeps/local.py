"""Running a sweep here: one run after the other, each in a process of its own."""

import signal
import subprocess
import threading
from collections.abc import Sequence

from deit_jax.files import sentence
from deit_jax.runs.interruption import Interrupted, taken_signals
from deit_jax.scale.launcher import Say
from deit_jax.sweeps.plan import PlannedRun


def run_all(runs: Sequence[PlannedRun], say: Say) -> list[str]:
    """Run what has not finished, in order; a run that fails does not stop the others.

    Each is a training with its own directory, so a sweep that was stopped goes on with the same
    command: finished runs are skipped, a run that was interrupted continues.

    Args:
        runs: from `plan`.
        say: what writes a line.

    Returns:
        Names of the runs that failed.

    Raises:
        Interrupted: a signal ended the sweep, and with it the run, which has been saved.
    """
    failed = []
    for number, run in enumerate(runs, start=1):
        heading = f"[{number} of {len(runs)}] {run.name}"
        if run.finished:
            if problem := _unlike_planned(run):
                failed.append(run.name)
                say(f"{heading}: FAILED: {problem}")
            else:
                say(f"{heading}: finished before, skipped.")
            continue
        say(f"{heading}: {run.experiment} -> {run.workdir}")
        code, number = _run(run.command())
        # 128 + SIGINT: it was the user, who wants the sweep to end too.
        number = number or (signal.SIGINT if code in (130, -2) else 0)
        if number and code:
            raise Interrupted(f"{heading}: stopped; the same command goes on.", 128 + number)
        if code:
            failed.append(run.name)
            say(f"{heading}: FAILED with exit code {code}; the sweep goes on.")
        if number:
            raise Interrupted(f"{heading}: finished; the sweep was stopped.", 128 + number)
    return failed


def _run(command: Sequence[str]) -> tuple[int, int]:
    """Run a program to its end; return its exit code, and the signal that came meanwhile or 0.

    A signal goes on to the program, which needs time to save. Where it has had it from the terminal
    too, it takes both for one.
    """
    process = subprocess.Popen(command)
    came: list[int] = []

    def pass_on(number: int, _: object) -> None:
        came.append(number)
        process.send_signal(number)

    before = {
        number: signal.signal(number, pass_on)
        for number in taken_signals()
        if threading.current_thread() is threading.main_thread()
    }
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, came[0] if came else 0


def _unlike_planned(run: PlannedRun) -> str:
    """Say in what the finished run in this directory differs from the planned one; "" if nothing.

    What decides only when something is read, shown or saved does not count.
    """
    # Imported when needed, since it starts JAX.
    from deit_jax.runs.going_on import config_changes

    try:
        changed = config_changes(run.workdir, run.config)
    except ValueError as error:
        return sentence(error)
    listed = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
    return f"a finished run with other values is there ({listed})." if listed else ""
