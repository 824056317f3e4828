"""The panels of an experiment as one PNG, as it would stand in a paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.reports.figures import literal, new_figure, save
from deit_jax.reports.palette import COLOURS, DASHES
from deit_jax.reports.panels import Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3


def draw_panels(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Write a PNG with panels that have curves, three in a row, and one legend.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    rows = -(-len(panels) // _COLUMNS)
    # Inches; a layout that is solved for takes several times as long as all the rest.
    width, height = 10.2, 1.0 + 2.5 * rows
    figure = new_figure(width, height, layout=None)
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.15 / width,
        top=1 - 0.65 / height,
        bottom=0.85 / height,
        wspace=0.2,
        hspace=0.42,
    )
    grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).flat
    for panel, axes in zip(panels, grid, strict=False):
        for series in panel.series:
            _draw(axes, series)
        axes.set_title(literal(panel.title), fontsize=9.5, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=COLOURS["grid"].light, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
        if panel.legend:
            axes.legend(frameon=False, fontsize=8)
        if panel.from_zero:
            axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8.5, labelbottom=True)
        axes.set_xlabel("epochs", fontsize=8.5)
    # All share it; from here on it no longer grows, and some curves are longer than the first's.
    figure.axes[0].set_xlim(left=0)
    for axes in list(grid):
        axes.set_visible(False)
    figure.suptitle(literal(title), fontsize=11, x=0.01, y=1 - 0.1 / height, ha="left", va="top")
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="lower left", ncols=6, frameon=False, fontsize=8.5)
    save(figure, path)


def _draw(axes: "Axes", series: Series) -> None:
    epochs, mean, deviation = series.points
    colour = COLOURS[series.line.colour].light
    axes.plot(
        epochs,
        mean,
        color=colour,
        linestyle=(0, DASHES[series.line.dash]),
        linewidth=1.4,
        # A line needs two points; one alone would be invisible. It is hollow in place of dashed.
        marker="o" if len(epochs) == 1 else "",
        fillstyle="none" if series.line.dash else "full",
        label=literal(series.label),
    )
    if deviation.any():
        low, high = mean - deviation, mean + deviation
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
