"""Tables and sentences for a terminal, and in plain aligned ASCII for pipes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deit_jax.tables import Column, Rows, markdown_table

_UNLIMITED = 10_000
_ASCII = str.maketrans({"\N{PLUS-MINUS SIGN}": "+-"})


def is_pretty(console: Console) -> bool:
    """Return whether the output is a terminal that can show more than ASCII."""
    return console.is_terminal and not console.options.ascii_only


def say(console: Console, text: str) -> None:
    """Print a sentence, folded between words to the width of a terminal, never in a pipe."""
    console.print(
        text if is_pretty(console) else text.translate(_ASCII),
        markup=False,
        highlight=False,
        soft_wrap=not console.is_terminal,
    )


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Rows,
    *,
    dispensable: Sequence[str] = (),
    section_after: int = 0,
) -> list[str]:
    """Print a table; a terminal that is too narrow gets fewer columns.

    Args:
        console: where to.
        columns: of the table.
        rows: a text for each column.
        dispensable: headings of columns to leave out for lack of width, the first first.
        section_after: draw a line after so many rows.

    Returns:
        Headings of the columns that were left out.
    """
    if not is_pretty(console):
        # Made ASCII before it is aligned: replacements are longer.
        plain = [[cell.translate(_ASCII) for cell in cells] for cells in rows]
        say(console, markdown_table(columns, plain) + "\n")
        return []
    left_out: list[str] = []
    waiting = list(dispensable)
    table = _table(columns, rows, left_out, section_after)
    while waiting and _width(console, table) > console.width:
        left_out.append(waiting.pop(0))
        table = _table(columns, rows, left_out, section_after)
    console.print(table)
    return left_out


def _table(
    columns: Sequence[Column], rows: Rows, left_out: Sequence[str], section_after: int
) -> Table:
    shown = [number for number, column in enumerate(columns) if column.heading not in left_out]
    table = Table(box=box.SIMPLE_HEAD)
    for number in shown:
        justify: Literal["left", "right"] = "right" if columns[number].numbers else "left"
        table.add_column(columns[number].heading, justify=justify)
    for position, cells in enumerate(rows, start=1):
        table.add_row(*(escape(cells[number]) for number in shown))
        if position == section_after:
            table.add_section()
    return table


def _width(console: Console, table: Table) -> int:
    unlimited = console.options.update(max_width=_UNLIMITED)
    return console.measure(table, options=unlimited).maximum


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left; gives the function that moves it on by so many."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
