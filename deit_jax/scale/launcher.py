"""Starting the processes of a run on one machine, and all of them again when one dies.

Process 0 has the terminal; what the others print comes with their number before each line. A
process that ends by what the user has to mend (exit codes 2 and 3) or by a signal ends the run; any
other end starts all of them again, from the last checkpoint, so many times.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Final

from deit_jax.runs.interruption import taken_signals
from deit_jax.scale.failure import LOST_CODE

_HOST: Final = "127.0.0.1"
# For the others to end themselves when one has, by what it told them.
_ENDING_SECONDS: Final = 15.0
# Exit codes that another start would only repeat.
_FINAL: Final = (0, 2, 3)
_PR_SET_PDEATHSIG: Final = 1

_POLL_SECONDS: Final = 0.05

Process = subprocess.Popen[bytes]
Say = Callable[[str], None]


def launch(command: Sequence[str], count: int, restarts: int, say: Say) -> int:
    """Run a program in several processes that train together; return the exit code.

    Args:
        command: what each of them runs; which process it is stands in JAX's variables.
        count: how many.
        restarts: how often all may be started again.
        say: writes a line.
    """
    came: list[int] = []
    processes: list[Process] = []

    def pass_on(number: int, _: object) -> None:
        came.append(number)
        for process in processes:
            with contextlib.suppress(OSError):
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in taken_signals()}
    try:
        for start in range(restarts + 1):
            processes[:] = _start(command, count)
            if came:
                # Nobody was there to pass it on to.
                pass_on(came[-1], None)
            _wait(processes)
            index, code = _cause(_end(processes))
            if came or code in _FINAL:
                return code
            what = f"process {index} of {count} {_ended(code)}"
            if start < restarts:
                say(f"launch: {what}; all are started again ({start + 1} of {restarts}).")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    after = f" after {restarts} restarts" if restarts else "; --restarts=K would try again"
    say(f"launch: {what}, which ends the run{after}.")
    return code


def _start(command: Sequence[str], count: int) -> list[Process]:
    """Start all processes, which meet at a port of this machine that nobody else reaches."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    follow = _follow_parent()
    processes = []
    for index in range(count):
        environment = {
            **os.environ,
            "JAX_COORDINATOR_ADDRESS": f"{_HOST}:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        output = None if index == 0 else subprocess.PIPE
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=None if index == 0 else subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            preexec_fn=follow,
        )
        processes.append(process)
        if process.stdout is not None:
            _copy(process.stdout, f"[{index}] ".encode())
    return processes


def _wait(processes: Sequence[Process]) -> None:
    """Wait until all have ended, or one has failed."""
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            return
        time.sleep(_POLL_SECONDS)


def _end(processes: Sequence[Process]) -> list[int | None]:
    """Wait for those that live on to end themselves; return exit codes, None for who did not."""
    deadline = time.monotonic() + _ENDING_SECONDS
    codes: list[int | None] = []
    for process in processes:
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
            codes.append(128 - code if code < 0 else code)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            codes.append(None)
    return codes


def _cause(codes: Sequence[int | None]) -> tuple[int, int]:
    """Return which process has led to the end of all, and its exit code."""

    def follows(code: int) -> int:
        if code in _FINAL:
            return 0 if code else 4
        return 3 if code == LOST_CODE else 1 if code > 128 else 2

    found = [(follows(code), index, code) for index, code in enumerate(codes) if code is not None]
    _, index, code = min(found)
    return index, code


def _copy(stream: IO[bytes], before: bytes) -> None:
    """Copy lines to standard error, each behind a few characters, in a thread."""

    def copy() -> None:
        for line in stream:
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), before + line.rstrip(b"\n") + b"\n")

    threading.Thread(target=copy, daemon=True).start()


def _follow_parent() -> Callable[[], None] | None:
    """Return what makes a new process save and end when this one is killed (Linux)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) and None


def _ended(code: int) -> str:
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
