"""Programs that take turns, so that what else happens on the machine hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Program:
    """One compiled workload with its data.

    Attributes:
        name: "deit_jax", "torch" or "torch_compile".
        micro_batches: slices that the batch is run in.
        call: starts one call.
        wait: returns when all calls that were started are done.
        wait_each: wait after every call. On a CPU calls that do not depend on each other would
            otherwise overlap; an accelerator runs them one after the other, as in training.
        compile_seconds: from the traced Python function to the program; 0.0 without compilation.
        planned_bytes: what the compiler reserves (arguments, results, temporaries); 0 if unknown.
    """

    name: str
    micro_batches: int
    call: Callable[[], Any]
    wait: Callable[[], None]
    wait_each: bool
    compile_seconds: float = 0.0
    planned_bytes: int = 0

    def run(self, calls: int) -> float:
        """Make so many calls and return the seconds that one took."""
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
            if self.wait_each:
                self.wait()
        self.wait()
        return (time.perf_counter() - start) / calls


def take_turns(
    programs: Sequence[Program], *, rounds: int, turn_seconds: float, pause_seconds: float = 0.0
) -> list[list[float]]:
    """Run A B C A B C ...; return each program's seconds per call, one number for each round.

    In its turn a program makes as many calls as fit into `turn_seconds`, at least one, after a
    pause, which programs in processes of their own need: OpenMP's threads go on spinning for a
    while when a call is done, and slow whoever comes next.
    """
    calls = []
    for program in programs:
        # The first run may still allocate or choose algorithms; the second is representative.
        program.run(1)
        calls.append(max(1, round(turn_seconds / program.run(1))))
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        for program, count, results in zip(programs, calls, seconds, strict=True):
            time.sleep(pause_seconds)
            results.append(program.run(count))
    return seconds


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some numbers."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """Return the median, and lowest and highest in brackets, each in this format."""
        return f"{self.median:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return how many times faster `ours` is, compared round by round (above 1: ours is faster)."""
    return spread([their / our for our, their in zip(ours, theirs, strict=True)])
