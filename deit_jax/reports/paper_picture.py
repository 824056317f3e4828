"""A table of the paper as a picture: measured means with their spread beside published figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_jax.config.paper import PaperTable
from deit_jax.reports.figures import literal, new_figure, save
from deit_jax.reports.paper_tables import Collection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion, told apart with any colour vision.
_OURS, _PUBLISHED = "#0072B2", "#D55E00"


def draw_table(collection: Collection, family: str, table: PaperTable, path: str | Path) -> None:
    """Write a PNG with a panel for each column and a line for each row.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    names = list(table.rows)
    figure = new_figure(2.2 + 2.6 * len(table.columns), 1.6 + 0.34 * len(names))
    panels = figure.subplots(1, len(table.columns), sharey=True, squeeze=False)[0]
    for column, (axes, heading) in enumerate(zip(panels, table.columns, strict=True)):
        for place, cells in enumerate(table.rows.values()):
            cell = cells[column]
            if cell is None:
                continue
            measured = collection.measured(family, cell)
            if cell.published is not None:
                axes.plot(
                    cell.published, place, "D", color=_PUBLISHED, fillstyle="none", label="paper"
                )
            if measured:
                axes.errorbar(
                    measured.mean,
                    place,
                    xerr=measured.deviation or 0.0,
                    fmt="o",
                    color=_OURS,
                    capsize=3,
                    label="measured",
                )
        axes.set_title(heading, fontsize=10, loc="left")
        axes.set_xlabel("top-1 (%)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(names)), list(map(literal, names)))
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(literal(table.title), fontsize=11, x=0.01, ha="left")
    _add_legend(figure, panels)
    save(figure, Path(path))


def _add_legend(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """Name each kind of mark once, below the panels."""
    marks: dict[str, Any] = {}
    for axes in panels:
        handles, texts = axes.get_legend_handles_labels()
        marks |= dict(zip(texts, handles, strict=True))
    figure.legend(
        list(marks.values()), list(marks), loc="outside lower left", ncols=2, frameon=False
    )
