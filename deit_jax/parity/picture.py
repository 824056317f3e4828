"""One picture of a comparison: how far both sides are apart, along the depth of the network."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.models.registry import HEADS, STEMS
from deit_jax.parity.layers import Difference, Section
from deit_jax.parity.report import Report
from deit_jax.reports.figures import literal, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOAT32 = 2.0**-24
_FLOOR = 1e-9
# Okabe and Ito's colours, told apart with any colour vision; shapes tell the same.
_KINDS = {
    "attention": ("#0072B2", "o"),
    "MLP": ("#E69F00", "s"),
    "block": ("#009E73", "D"),
    "normalisation": ("#CC79A7", "v"),
    "embedding": ("#56B4E9", "^"),
    "head": ("#000000", "P"),
    "layer": ("0.4", "o"),
}
_WRONG = "#D55E00"


def draw(report: Report, path: str | Path) -> None:
    """Write a PNG with a panel for each section; a single loss needs none.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    # The object interface: no global state, and no display is looked for.
    from matplotlib.figure import Figure

    sections = [section for section in report.sections if not section.title.startswith("losses")]
    longest = max(len(section.rows) for section in sections)
    figure = Figure(
        figsize=(min(14.0, max(8.0, 2 + 0.17 * longest)), 1.3 + 3.2 * len(sections)),
        dpi=150,
        layout="constrained",
    )
    panels = figure.subplots(len(sections), 1, squeeze=False)[:, 0]
    for axes, section in zip(panels, sections, strict=True):
        _panel(axes, section)
    verdict = "agree" if report.agrees else "disagree"
    figure.suptitle(
        f"{report.model}: deit_jax and {report.against.partition(' (')[0]} {verdict}\n",
        fontsize=13,
        x=0.01,
        ha="left",
        color="black" if report.agrees else _WRONG,
        weight="bold",
    )
    figure.text(
        0.01,
        1 - 0.42 / figure.get_figheight(),
        literal(f"{Path(report.weights).name}, {report.images}, float32"),
        fontsize=9.5,
        color="0.3",
        va="center",
    )
    _legend(figure, sections)
    save(figure, Path(path))


def _panel(axes: "Axes", section: Section) -> None:
    values = [_drawn(getattr(row, section.measure)) for row in section.rows]
    finite = [value for value in values if value < math.inf]
    top = 10 * max([*finite, section.tolerance])
    places = range(len(values))
    axes.axhspan(_FLOOR / 3, section.tolerance, color="#009E73", alpha=0.07, linewidth=0)
    axes.axhline(section.tolerance, color="0.35", linewidth=1.2, linestyle="--")
    axes.text(
        len(values) - 0.4, section.tolerance * 1.25, "tolerance", fontsize=8.5, ha="right",
        va="bottom", color="0.25",
    )  # fmt: skip
    if section.measure == "relative":
        axes.axhline(_FLOAT32, color="0.6", linewidth=0.9, linestyle=":")
        axes.text(
            len(values) - 0.4, _FLOAT32 / 1.25, "rounding of one float32 operation", fontsize=8,
            ha="right", va="top", color="0.45",
        )  # fmt: skip
    drawn = [min(value, top / 2) for value in values]
    axes.plot(places, drawn, color="0.75", linewidth=1, zorder=2)
    for place, value, row in zip(places, drawn, section.rows, strict=True):
        colour, marker = _KINDS[kind_of(row)]
        colour = colour if section.agrees(row) else _WRONG
        # Equal to the last bit: hollow.
        inside = "white" if getattr(row, section.measure) == 0 else colour
        axes.plot(
            place, value, marker=marker, color=colour, markersize=5.5, zorder=3,
            markerfacecolor=inside,
        )  # fmt: skip
    if first := section.first:
        _point_out(axes, section, first, drawn)
    _finish(axes, section, top)


def _point_out(axes: "Axes", section: Section, first: Difference, drawn: list[float]) -> None:
    place = section.rows.index(first)
    left = place < len(drawn) / 2
    axes.annotate(
        f"first to disagree: {first.layer}",
        (place, drawn[place]),
        xytext=(28 if left else -28, 22),
        textcoords="offset points",
        ha="left" if left else "right",
        fontsize=10,
        weight="bold",
        color=_WRONG,
        arrowprops={"arrowstyle": "->", "color": _WRONG, "linewidth": 1.4},
    )


def _finish(axes: "Axes", section: Section, top: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR / 3, 8 * top if section.first else top)
    axes.set_xlim(-0.8, len(section.rows) - 0.2)
    kind = "relative" if section.measure == "relative" else "absolute"
    axes.set_ylabel(f"largest {kind}\ndifference")
    axes.set_title(section.title[0].upper() + section.title[1:], fontsize=10.5, loc="left")
    ticks = [place for place, row in enumerate(section.rows) if _has_label(row, section)]
    labels = [_label(section.rows[place].layer) for place in ticks]
    axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend(figure: "Figure", sections: list[Section]) -> None:
    from matplotlib.lines import Line2D

    present = {kind_of(row) for section in sections for row in section.rows}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6, label=kind)
        for kind, (colour, marker) in _KINDS.items()
        if kind in present
    ]
    if any(getattr(row, s.measure) == 0 for s in sections for row in s.rows):
        equal = Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="white")
        equal.set_label("hollow: equal to the last bit")
        handles.append(equal)
    figure.legend(
        handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=9
    )


def kind_of(row: Difference) -> str:
    """Return what a layer is, as the legend says it."""
    parts = row.layer.split(".")
    last = parts[-1]
    if last in ("attn", "mlp"):
        return {"attn": "attention", "mlp": "MLP"}[last]
    if last.startswith("norm"):
        return "normalisation"
    if parts[0] in ("tokens", "stem", *(path[0] for path in STEMS)):
        return "embedding"
    if parts[0] in ("logits", *(path[0] for path in HEADS)):
        return "head"
    return "block" if len(parts) == 2 else "layer"


def _has_label(row: Difference, section: Section) -> bool:
    """Every layer has one in a short panel; in a long one blocks have one each."""
    if len(section.rows) <= 36 or "." not in row.layer:
        return True
    return kind_of(row) == "block"


def _label(layer: str) -> str:
    return layer.replace("blocks.", "block ").replace(".", " ").replace("mlp", "MLP")


def _drawn(value: float) -> float:
    """Zero lies at the lower edge of a logarithmic axis, what is not finite beyond the upper."""
    return math.inf if not math.isfinite(value) else max(value, _FLOOR)
