"""Tables as text that is also Markdown: for files, pipes and logs."""

from collections.abc import Sequence
from typing import NamedTuple

Rows = Sequence[Sequence[str]]


class Column(NamedTuple):
    """Heading of a column, and whether it holds numbers, which are aligned right."""

    heading: str
    numbers: bool = False


def markdown_table(columns: Sequence[Column], rows: Rows) -> str:
    """Return a GitHub-flavoured Markdown table whose columns are also aligned as text."""
    headings = [column.heading for column in columns]
    widths = [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column.numbers else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + ":" if column.numbers else "-" * width
        for width, column in zip(widths, columns, strict=True)
    ]
    return "\n".join([line(headings), line(rule), *map(line, rows)])
