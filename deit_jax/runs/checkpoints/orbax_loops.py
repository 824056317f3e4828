"""What Orbax leaves going on when a save or a restore fails, waited for until it has ended.

Orbax reads and writes the arrays of an item at the same time in an event loop, and the items in
threads. At the first array that fails it closes the loop, while TensorStore still works on others;
each of those then finds its loop closed and prints a traceback, hundreds for one full disk. And the
threads of the other items write on into a directory that is being removed.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

# Only what waits for ever, for the one that failed, takes so long.
_LONGEST_SECONDS: Final = 60.0


def let_loops_end() -> None:
    """Make Orbax's event loops end only when all that was begun in them has ended.

    The failure is raised as before. Orbax has no setting for it, so its own function is wrapped,
    through which all its reading and writing goes.
    """
    try:
        from orbax.checkpoint._src import asyncio_utils

        run_sync = asyncio_utils.run_sync
    except (ImportError, AttributeError):
        # A version that works in another way: it may print its tracebacks, and no harm is done.
        return
    if not hasattr(run_sync, "__wrapped__"):
        asyncio_utils.run_sync = _patient(run_sync)


def wait_for_threads() -> None:
    """Wait for the threads of a save that has failed."""
    end = time.monotonic() + _LONGEST_SECONDS
    for thread in _threads():
        # Not its own `join`, which raises what the thread has failed of.
        threading.Thread.join(thread, max(0.0, end - time.monotonic()))


def are_threads_left() -> bool:
    """Return whether threads of a save that has failed still wait, for minutes and in vain."""
    return bool(_threads())


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if type(one).__module__.startswith("orbax.")]


def _patient(run_sync: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return run_sync(_to_the_end(coroutine))

    run.__wrapped__ = run_sync  # type: ignore[attr-defined]
    return run


async def _to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except Exception:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            done, _ = await asyncio.wait(others, timeout=_LONGEST_SECONDS)
            for task in done:
                # Looked at, or asyncio would report it as overlooked.
                _ = task.cancelled() or task.exception()
        raise
