"""What all processes that work for another one share: when they end, and what does not end them."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""What terminals and schedulers send to end a program: to its main process, or to all of them."""

_LAST: list[Callable[[], None]] = []


def at_end(action: Callable[[], None]) -> None:
    """Do something quick when this process ends, also where a signal ends it at once."""
    _LAST.append(action)
    atexit.register(action)


def do_last() -> None:
    """Do what `at_end` was told; before `os._exit`, which leaves out what Python does itself."""
    for action in _LAST:
        with contextlib.suppress(Exception):
            action()


@contextlib.contextmanager
def signals_held_back(*names: str) -> Iterator[None]:
    """Hold signals back, in processes started meanwhile too, before their first line runs.

    A terminal sends Ctrl-C to all processes, and many schedulers send SIGTERM to all; the first one
    sees to the others.

    Args:
        names: of the signals, such as "SIGINT".
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in names})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent(last: Callable[[], None] | None = None) -> None:
    """End this process when the one that started it has ended; a killed one cannot stop it.

    Args:
        last: is called before.
    """

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            with contextlib.suppress(Exception):
                if last is not None:
                    last()
            os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent").start()


def start_resource_tracker() -> None:
    """Start Python's process that removes shared memory and semaphores after a crash.

    It would be started anyway, but then speaks of "leaked" objects whenever a program is ended by
    a signal, and lets signals through again in the thread that started it: here a short-lived one.
    """
    variable, silence = "PYTHONWARNINGS", "ignore:resource_tracker"

    def start() -> None:
        before = os.environ.get(variable)
        os.environ[variable] = f"{before},{silence}" if before else silence
        try:
            resource_tracker.ensure_running()
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
