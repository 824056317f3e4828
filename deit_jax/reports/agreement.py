"""The table in the form of the paper's Table 4: how often two classifiers answer differently."""

from pathlib import Path

from rich.console import Console

from deit_jax.evaluation.agreement import Disagreement
from deit_jax.files import write_text
from deit_jax.reports.figures import literal, new_figure, save
from deit_jax.reports.terminal import print_table, say
from deit_jax.tables import Column, markdown_table

_PICTURE = "agreement.png"
_TEXT = "agreement.md"


def columns(result: Disagreement) -> list[Column]:
    """Return the headings: names, then numbers that stand for them."""
    return [Column("classifier"), *(Column(f"({i + 1})", True) for i in range(len(result.names)))]


def disagreement_rows(result: Disagreement) -> list[list[str]]:
    """Return the cells under `columns`, three decimals as in the paper."""
    return [
        [f"({number + 1}) {name}", *(f"{value:.3f}" for value in result.fractions[number])]
        for number, name in enumerate(result.names)
    ]


def disagreement_caption(result: Disagreement) -> str:
    """Return the sentence under the table."""
    return (
        f"Fraction of {result.images:,} images that two classifiers answer differently; beside "
        "the labels it is the error. The form is that of Table 4 in arXiv 2012.12877."
    )


def show_disagreement(result: Disagreement, console: Console) -> None:
    """Print the table."""
    print_table(console, columns(result), disagreement_rows(result))
    say(console, disagreement_caption(result))


def write(result: Disagreement, directory: str | Path) -> list[Path]:
    """Write Markdown and, where matplotlib is installed, a picture; return the files."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / _TEXT
    write_text(text, disagreement_markdown(result))
    try:
        draw_disagreement(result, folder / _PICTURE)
    except ModuleNotFoundError:
        return [text]
    return [text, folder / _PICTURE]


def disagreement_markdown(result: Disagreement) -> str:
    """Return table and caption as GitHub-flavoured Markdown."""
    table = markdown_table(columns(result), disagreement_rows(result))
    return f"{table}\n\n{disagreement_caption(result)}\n"


def draw_disagreement(result: Disagreement, path: Path) -> None:
    """Write a PNG with the table.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    count, highest = len(result.names), result.fractions.max()
    side = 2.5 + 0.8 * count
    figure = new_figure(side + 1.5, side)
    axes = figure.subplots()
    axes.imshow(result.fractions, cmap="Blues", vmin=0, vmax=highest or 1)
    names = list(map(literal, result.names))
    axes.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    for row in range(count):
        for column in range(count):
            value = result.fractions[row, column]
            colour = "white" if value > 0.6 * highest else "black"
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
    axes.set_title(f"Fraction of {result.images:,} images answered differently")
    save(figure, path)
