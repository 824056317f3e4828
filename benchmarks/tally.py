"""What came of interrupting runs, counted by kind, as rows of a table."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally(ABC):
    """Counts of one kind of interruption.

    Attributes:
        kind: its name.
        runs: that have ended.
        before_first_step: interruptions before a step was taken.
        other_ends: runs that ended otherwise than the one left alone.
        steps_lost: of each interruption.
        seconds: of each, until all had ended.
        problems: what is wrong, in words.
    """

    kind: str
    runs: int = 0
    before_first_step: int = 0
    other_ends: int = 0
    steps_lost: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @abstractmethod
    def cells(self) -> list[object]:
        """Return the cells of its row."""

    @property
    def lost(self) -> str:
        """The cell of lost steps."""
        return f"{sum(self.steps_lost)} (most {max(self.steps_lost, default=0)})"

    def row(self) -> str:
        """Return a line of the table."""
        return f"| {' | '.join(map(str, self.cells()))} |"

    def other_end(self, text: str) -> None:
        """Count a run that ended otherwise."""
        self.other_ends += 1
        self.problems.append(text)


def write_table(
    folder: Path, columns: Sequence[str], tallies: Sequence[Tally], problems: Sequence[str]
) -> str:
    """Write `table.md` and `problems.txt`, and return the table."""
    (folder / "problems.txt").write_text("\n\n".join(problems))
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    table = "\n".join([head, *(tally.row() for tally in tallies)])
    (folder / "table.md").write_text(f"{table}\n")
    return table
