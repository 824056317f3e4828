"""One picture: accuracy over the epochs, a curve for each experiment, and the loss below it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from deit_jax.reports.comparison import Comparison
from deit_jax.reports.experiments import Experiment
from deit_jax.reports.figures import literal, new_figure, save
from deit_jax.reports.palette import COLOURS, DASHES, stroke_of_experiment
from deit_jax.reports.table3 import percent
from deit_jax.runs.history import RunRecord, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(comparison: Comparison, path: str | Path) -> None:
    """Write a PNG with the learning curves.

    Args:
        comparison: what `compare` found.
        path: of the PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(9.6, 6.4)
    accuracy, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    architectures = {one.architecture for one in comparison.students}
    for number, experiment in enumerate(comparison.students):
        line = stroke_of_experiment(number)
        style = dict(color=COLOURS[line.colour].light, linestyle=(0, DASHES[line.dash]))
        model = f"{experiment.model}, " if len(architectures) > 1 else ""
        label = literal(f"{model}{experiment.label}: {percent(experiment.inference)}")
        key = f"{comparison.weights}/{experiment.first.inference_head}/top1"
        _draw(accuracy, experiment, curve(experiment, "eval", key), style, label)
        _draw(loss, experiment, curve(experiment, "train", "loss"), style)
    for number, teacher in enumerate(comparison.teachers):
        accuracy.axhline(
            teacher.inference.mean,
            color="0.35",
            linewidth=1.3,
            linestyle=(0, (6, 3 + 2 * number)),
            label=literal(f"{teacher.label} {teacher.model}: {percent(teacher.inference)}"),
        )
    _finish(comparison, figure, accuracy, loss)
    save(figure, Path(path))


def curve(experiment: Experiment, split: Split, key: str) -> Float[np.ndarray, "3 points"]:
    """Return epochs, mean and sample standard deviation over the runs at the steps all share.

    The deviation is 0 for a single run. Values that are not finite are left out.
    """
    each = [_series(run, split, key) for run in experiment.runs]
    steps = sorted(set.intersection(*(set(series) for series in each)))
    epochs = np.array([each[0][step][0] for step in steps])
    values = np.array([[series[step][1] for step in steps] for series in each])
    deviation = values.std(axis=0, ddof=1) if len(each) > 1 else np.zeros(len(steps))
    return np.stack([epochs, values.mean(axis=0), deviation])


def _series(run: RunRecord, split: Split, key: str) -> dict[int, tuple[float, float]]:
    """Return (epoch, value) by step."""
    return {
        row["step"]: (row["epoch"], row[key])
        for row in run.lines(split)
        if row.get(key) is not None and math.isfinite(row[key])
    }


def _draw(
    axes: "Axes",
    experiment: Experiment,
    points: Float[np.ndarray, "3 points"],
    style: dict[str, Any],
    label: str | None = None,
) -> None:
    epochs, mean, deviation = points
    # A line needs two points; one alone would be invisible.
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, mean, linewidth=1.8, label=label, marker=marker, **style)
    if len(experiment.runs) > 1:
        low, high = mean - deviation, mean + deviation
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _finish(comparison: Comparison, figure: "Figure", accuracy: "Axes", loss: "Axes") -> None:
    several = any(len(one.runs) > 1 for one in comparison.students)
    names = {one.model for one in comparison.students}
    sources = {one.first.data_name for one in comparison.students}
    figure.suptitle(
        literal(f"Learning curves of {_listed(names)} on {_listed(sources)}"),
        fontsize=13,
        x=0.01,
        ha="left",
    )
    weights = " of averaged (EMA) weights" if comparison.weights == "ema" else ""
    accuracy.set_title(
        f"Evaluation accuracy{weights}, both heads together where there are two"
        + ("; mean and standard deviation over seeds" if several else ""),
        fontsize=9.5,
        loc="left",
        color="0.3",
    )
    accuracy.set_ylabel("top-1 accuracy (%)")
    loss.set_title(
        "Training loss, of each experiment's own objective", fontsize=9.5, loc="left", color="0.3"
    )
    loss.set_ylabel("loss")
    loss.set_xlabel("epochs")
    for axes in (accuracy, loss):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
    loss.set_xlim(left=0)
    _add_legend(figure, accuracy)


def _add_legend(figure: "Figure", accuracy: "Axes") -> None:
    """Put the legend below the panels, where it hides nothing, and give it the room it needs."""
    handles, texts = accuracy.get_legend_handles_labels()
    columns = 2 if max(map(len, texts)) < 55 else 1
    lines = -(-len(texts) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, lines - 3))
    figure.legend(
        handles,
        texts,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        title="top-1 accuracy at the end (%)",
        title_fontsize=9.5,
        alignment="left",
    )


def _listed(names: set[str]) -> str:
    """Join a few names; count many."""
    shown = sorted(names)
    return ", ".join(shown) if len(shown) < 3 else f"{len(shown)} models"
