"""How a config file says which row and column of a paper's table its experiments are."""

from typing import NamedTuple


class Cell(NamedTuple):
    """One figure of a table.

    Attributes:
        argument: the experiment, as it stands behind the colon.
        published: top-1 in percent; None where nothing was published.
        head: "class", "distillation" or "fused"; "" is the head that the model answers with.
        family: of the config file; "" is the one that the table is in.
    """

    argument: str
    published: float | None = None
    head: str = ""
    family: str = ""


class PaperTable(NamedTuple):
    """A table of a paper, each figure with the experiment that gives it.

    Attributes:
        title: what it shows, and where it is published.
        columns: headings of the figures.
        rows: heading of each row, and a figure for each column, None where there is none.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Cell | None, ...]]

    @property
    def cells(self) -> list[Cell]:
        """All figures, row by row."""
        return [cell for row in self.rows.values() for cell in row if cell]
