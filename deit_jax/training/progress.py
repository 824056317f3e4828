"""What a person sees of a run: a bar on a terminal, lines of text anywhere else."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

import jax
from absl import logging as absl_logging
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

_SECONDS_BETWEEN_LINES = 10.0
_SHOWN = (
    ("epoch", "epoch {:.2f}"),
    ("loss", "loss {:.4f}"),
    ("top1", "top-1 {:.2f} %"),
    ("images_per_second", "{:,.0f} images/s"),
)


class Progress:
    """Shows how far training is and how long it will take; a context manager.

    Only the first process of a run shows anything. The time left is judged by the time between the
    latest updates, the first of which comes after the first step, so compilation is not counted.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start_step: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to show steps from `start_step` to `total_steps`.

        Args:
            total_steps: last step of the run.
            start_step: step that training goes on from.
            console: where to write; standard output if None.
            clock: seconds.
        """
        self._total, self._clock = total_steps, clock
        self._console = console or Console()
        self._shown = jax.process_index() == 0
        self._bar = _Bar(self._console, clock)
        self._has_bar = self._shown and self._console.is_terminal
        self._task = self._bar.add_task("", total=total_steps, completed=start_step)
        self._last_line: float | None = None
        self._status = ""
        self._best = ""

    def __enter__(self) -> "Progress":
        if self._has_bar:
            self._bar.start()
            # Rich moves what is written to standard error above the bar; absl's handler has to be
            # told, because it has remembered the stream.
            self._redirect_logging()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._has_bar:
            self._bar.stop()
            self._redirect_logging()

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Show that a step is done; call it after every step, with values when there are any.

        Args:
            step: steps taken so far.
            values: named as in `metrics.jsonl`; epoch, loss, top1 and images_per_second are shown.
        """
        if not self._shown:
            return
        self._bar.update(self._task, completed=step)
        if values is not None:
            self._status = "  ".join(
                text.format(values[name]) for name, text in _SHOWN if name in values
            )
        if self._has_bar:
            self._bar.status = "  ".join(part for part in (self._status, self._best) if part)
        elif values is not None and self._line_due(step, self._clock()):
            share = f"step {step:,} of {self._total:,} ({step / self._total:.0%})"
            # An evaluation follows the last step, and may be the best; no time is left.
            outlook = [self._best, self._bar.time_left()] if step < self._total else []
            parts = [share, self._status, *outlook]
            self.message("  ".join(part for part in parts if part))

    def show_best(self, step: int, top1: float) -> None:
        """Show the best evaluation so far, in percent, from now on."""
        self._best = f"best {top1:.2f} % at step {step:,}"

    def message(self, text: str) -> None:
        """Write a line of text, above the bar if there is one."""
        if self._shown:
            self._console.print(
                text, markup=False, emoji=False, highlight=False, soft_wrap=not self._has_bar
            )

    def _line_due(self, step: int, now: float) -> bool:
        """Return whether to write a line: the first, the last, and at most one in ten seconds."""
        recent = self._last_line is not None and now - self._last_line < _SECONDS_BETWEEN_LINES
        if recent and step < self._total:
            return False
        self._last_line = now
        return True

    def _redirect_logging(self) -> None:
        absl_logging.get_absl_handler().python_handler.setStream(sys.stderr)


class _Bar(RichProgress):
    """A bar with numbers above it, in as many lines as a terminal of 40 columns needs for them."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        # The first thing that the class above does is to ask for what it shows.
        self.status, self._terminal = "", console
        self._left = TimeRemainingColumn()
        super().__init__(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            self._left,
            console=console,
            expand=True,
            refresh_per_second=4,
            get_time=clock,
            # A step may take longer than the 30 seconds that rich looks back to.
            speed_estimate_period=math.inf,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        for line in _folded(self.status, self._terminal.width):
            yield Text(line, no_wrap=True, overflow="ellipsis")
        yield self.make_tasks_table(self.tasks)

    def time_left(self) -> str:
        """Return what the bar says, or nothing before two updates."""
        (task,) = self.tasks
        return "" if task.time_remaining is None else f"{self._left.render(task)} left"


def _folded(status: str, width: int) -> list[str]:
    """Return lines of whole numbers with their names, which two spaces separate."""
    lines = [""]
    for part in status.split("  "):
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
