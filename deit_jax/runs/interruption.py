"""What a signal does to a run: it is saved after the step at hand; a second one ends it at once.

Schedulers announce the end with SIGTERM, SIGUSR1 or SIGUSR2, a terminal with SIGINT (Ctrl-C) or,
when it is closed, SIGHUP. All of them mean the same here. The exit code is 128 + the number of the
signal, as shells have it: 143 for SIGTERM, 130 for SIGINT.

Python runs its handlers in the main thread alone, between two instructions: not while XLA compiles,
for minutes, and what they raise inside a callback of JAX is lost. So signals are blocked in all
threads but taken by one that does nothing else. So is SIGTERM from JAX's own notice of preemption,
which there is after `jax.distributed.initialize`: processes agree in the training loop instead.
Importing this module starts nothing.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, Protocol, TypeVar

from deit_jax.data.worker_processes import STOP_SIGNALS, do_last

# Programs such as `timeout` signal a process and then its group; nobody presses a key so fast.
_SAME_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0

Item = TypeVar("Item")


def taken_signals() -> set[signal.Signals]:
    """Return what means the end of a run, less what the parent process has told to ignore."""
    found = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    return {number for number in found if signal.getsignal(number) != signal.SIG_IGN}


class Interrupted(Exception):
    """A signal has ended training; the message says after which step and whether it is saved.

    Attributes:
        code: exit code for the process.
        of_all_processes: raised by all processes of a run at the same point.
    """

    of_all_processes = True

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Others(Protocol):
    """The other processes of a run, which stop after the same step and end together."""

    def begin(self, step: int) -> None:
        """Note that this process begins a step, once there is no agreement under way."""

    def ask_to_stop(self) -> None:
        """Ask for a step to stop after; that is soon, and after what any has begun."""

    def stops_after(self, step: int) -> bool:
        """Return whether it is this step."""

    def leave(self, code: int, text: str) -> NoReturn:
        """End all of them at once, with a line for the user."""


class Abandoned(Exception):
    """Work was given up half done because a signal has come."""


class Interruption:
    """Whether the run has been asked to stop. Until something is worth saving it just ends.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self, leave: Callable[[int, str], None] | None = None) -> None:
        """Watch nothing yet: see `install` and `receive`.

        Args:
            leave: ends the process with an exit code, and a line of text for its user.
        """
        self.requested = False
        self._leave = leave or leave_at_once
        self._others: Others | None = None
        self._signal = signal.SIGTERM
        self._time = 0.0
        self._worth_saving = self._saving = False
        self._alive, self._longest = time.monotonic(), 0.0
        self._lock = threading.RLock()

    @classmethod
    def install(cls) -> "Interruption":
        """Take all signals of this process from now on; call it in the main thread, early.

        What the parent process has told this one to ignore (`nohup`, a shell's `&`) stays ignored.
        On a system without POSIX signals nothing is taken.
        """
        interruption = cls()
        if not hasattr(signal, "pthread_sigmask"):
            return interruption
        taken = taken_signals()
        # Threads and processes started from now on inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, taken)
        for number in taken:
            # For a thread in which a library lifts the mask again.
            signal.signal(number, lambda which, _: interruption.receive(which))

        def wait() -> NoReturn:
            while True:
                interruption.receive(signal.sigwait(taken))

        threading.Thread(target=wait, daemon=True, name="signals").start()
        return interruption

    @property
    def name(self) -> str:
        """Name of the first signal."""
        return self._signal.name

    @property
    def code(self) -> int:
        """Exit code of a process that it has ended."""
        return 128 + self._signal

    def receive(self, number: int) -> None:
        """Do what a signal asks for: nothing but remember it where there is a step to be saved."""
        now = time.monotonic()
        with self._lock:
            first = not self.requested
            if first:
                self.requested, self._signal, self._time = True, signal.Signals(number), now
            elif now - self._time < _SAME_SECONDS:
                return
            worth_saving = self._worth_saving
        if not first:
            name = signal.Signals(number).name
            self._leave(
                128 + number,
                f"ended at once by {name}, the second signal; the same command goes on from the "
                "last checkpoint.",
            )
        elif not worth_saving:
            self._leave_unsaved()
        else:
            threading.Thread(target=self._await_save, daemon=True).start()

    def agree_with(self, others: Others) -> None:
        """Stop and end together with other processes from now on."""
        self._others, self._leave = others, others.leave

    @property
    def alone(self) -> bool:
        """Whether nobody else is asked."""
        return self._others is None

    def begin(self, step: int) -> None:
        """Note that a step is about to be taken."""
        if self._others:
            self._others.begin(step)
            if self.requested:
                self._others.ask_to_stop()

    def stops_after(self, step: int) -> bool:
        """Return whether to stop after this step; of many processes all have the same answer."""
        return self._others.stops_after(step) if self._others else self.requested

    def step_done(self) -> None:
        """Note that a step was taken: from the first one on there is something to be saved."""
        now = time.monotonic()
        with self._lock:
            self._longest, self._alive = max(self._longest, now - self._alive), now
            self._worth_saving = True

    def unless_requested(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; raise `Abandoned` where a signal has come meanwhile."""
        for item in items:
            if self.requested:
                raise Abandoned
            yield item

    def saving(self) -> None:
        """Note that the step has ended and is being saved, which may take as long as it takes."""
        self._saving = True

    def error(self, step: int, *, saved: bool) -> Interrupted:
        """Return what ends training after this step."""
        who = self.name if self.requested else "a signal to another process"
        if saved:
            return Interrupted(
                f"stopped by {who} after step {step:,}, saved; the same command goes on.", self.code
            )
        return Interrupted(
            f"stopped by {who} after step {step:,}, which could not be saved (see above); the same "
            "command goes on from the last checkpoint.",
            self.code,
        )

    def _leave_unsaved(self) -> None:
        self._leave(
            self.code,
            f"stopped by {self.name} before the first step of this start: nothing was lost, and "
            "the same command goes on.",
        )

    def _await_save(self) -> None:
        """End a run whose step never ends: longer than any before, and than a minute."""
        # Not in the thread that takes signals: writing may have to wait for whoever reads.
        print(
            f"{self.name}: the step at hand is finished and saved; a second signal ends at once.",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(max(_PATIENCE_SECONDS, self._longest))
        if not self._saving:
            self._leave(
                self.code,
                f"ended by {self.name}: the step at hand did not end within "
                f"{time.monotonic() - self._time:.0f} s, so it was not saved; the same command "
                "goes on from the last checkpoint.",
            )


def leave_at_once(code: int, line: str) -> NoReturn:
    """End the process without waiting for anything, wherever the main thread is.

    Args:
        code: exit code.
        line: for the user; "" for none.
    """
    # What was printed before comes first; but a reader that has stopped reading must not hold it.
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(timeout=1)
    with contextlib.suppress(OSError):
        if os.isatty(1):
            # The progress bar has hidden the cursor.
            os.write(1, b"\x1b[?25h\n")
        if line:
            os.write(2, f"{line}\n".encode())
    do_last()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
