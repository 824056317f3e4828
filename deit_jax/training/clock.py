"""How long training has taken, and how fast it is without evaluations and checkpoints."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator


class Clock:
    """Seconds spent training, evaluation and checkpoints not counted in the rate."""

    def __init__(self, before: float) -> None:
        self._before, self._begin = before, time.monotonic()
        self._mark, self._step, self._away, self._waited = self._begin, 0, 0.0, 0.0

    def total(self) -> float:
        """Seconds of the whole run, earlier stretches included."""
        return self._before + time.monotonic() - self._begin

    def since_start(self) -> float:
        """Seconds of this stretch."""
        return time.monotonic() - self._begin

    def restart(self, step: int) -> None:
        """Count the rate from now."""
        self._mark, self._step, self._away, self._waited = time.monotonic(), step, 0.0, 0.0

    def rate(self, step: int) -> float:
        """Return the steps per second since the last call; NaN where there were none."""
        steps, seconds = step - self._step, self._seconds()
        # None are counted before a log line behind the first step, which compiles.
        rate = steps / seconds if steps and seconds > 0 else math.nan
        self.restart(step)
        return rate

    @contextlib.contextmanager
    def paused(self, settle: Callable[[], object]) -> Iterator[None]:
        """Leave what happens inside out of the rate.

        Args:
            settle: waits for the devices: the steps that a loop has run ahead by still count.
        """
        settle()
        begin = time.monotonic()
        yield
        self._away += time.monotonic() - begin

    @contextlib.contextmanager
    def waiting(self, idle: Callable[[], bool]) -> Iterator[None]:
        """Count what happens inside as a wait, if the devices are idle at its end.

        A loop that runs ahead of its devices waits for batches too, but nothing is lost by it.
        """
        begin = time.monotonic()
        yield
        if idle():
            self._waited += time.monotonic() - begin

    def waited(self) -> float:
        """Return the share of the time since the last call of `rate` that was spent waiting."""
        seconds = self._seconds()
        return self._waited / seconds if seconds > 0 else math.nan

    def _seconds(self) -> float:
        return time.monotonic() - self._mark - self._away
