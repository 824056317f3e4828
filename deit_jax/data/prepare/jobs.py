"""Work for several processes: one function, many jobs, results as they come."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from deit_jax.data.worker_processes import follow_parent, signals_held_back

Job = TypeVar("Job")
Result = TypeVar("Result")

# What this process works for, as `_receive` got it.
_given: tuple[Callable[..., Any], Any] | None = None


def in_processes(
    function: Callable[[Any, Job], Result], shared: Any, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Call `function(shared, job)` for every job.

    Processes end with the one that started them, however that ends. An error, or the end of the
    iteration before its time, stops them in the middle of their jobs.

    Args:
        function: of a module.
        shared: what all jobs need, such as a source; it travels once for each process.
        jobs: small and picklable.
        workers: processes.

    Yields:
        (job, result) in the order in which they are done.

    Raises:
        ChildProcessError: if a process has died.
    """
    if not jobs:
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max(1, min(workers, len(jobs))),
        # A forked process could inherit a lock that another thread held.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_receive,
        initargs=(function, shared),
    )
    try:
        with signals_held_back("SIGINT"):
            running = {pool.submit(_call, job): job for job in jobs}
        for done in as_completed(running):
            yield running[done], done.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A worker process has died: often the system kills it for lack of memory; repeat the "
            "command, maybe with fewer --workers: what is finished is kept."
        ) from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _receive(function: Callable[..., Any], shared: Any) -> None:
    global _given
    _given = function, shared
    # Ctrl-C reaches every process of a terminal; the first one sees to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()


def _call(job: Any) -> Any:
    assert _given is not None
    function, shared = _given
    return function(shared, job)
