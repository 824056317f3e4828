"""What the small pictures of an experiment show: accuracy and losses by head, rate, speed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deit_jax.reports.comparison import Comparison
from deit_jax.reports.curves import curve
from deit_jax.reports.experiments import Experiment, taught
from deit_jax.reports.palette import HEAD_NAMES, Stroke, stroke_of_experiment

# Each term has the colour of the head that it teaches where there are two.
_LOSSES = (
    ("loss", "total", Stroke("ink")),
    ("label_loss", "of the labels", Stroke("class")),
    ("distillation_loss", "of the teacher", Stroke("distillation")),
)


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        label: what it is, in words.
        line: how it is drawn.
        points: epochs, means and standard deviations (0 for a single run).
    """

    label: str
    line: Stroke
    points: Float[np.ndarray, "3 points"]


@dataclass(frozen=True)
class Panel:
    """A picture of curves over epochs.

    Attributes:
        name: of its file.
        title: what is measured, with its unit.
        series: the curves; () where the runs have none.
        legend: whether its curves are others than those of the panels beside it.
        from_zero: whether the axis begins at 0.
        missing: a sentence that takes the place of the curves where there are none.
    """

    name: str
    title: str
    series: tuple[Series, ...]
    legend: bool = False
    from_zero: bool = False
    missing: str = "The log of this run has none."


def comparison_panels(comparison: Comparison) -> list[Panel]:
    """Return accuracy and training loss of all experiments."""
    chosen = []
    for number, experiment in enumerate(comparison.students):
        key = f"{comparison.weights}/{experiment.first.inference_head}/top1"
        chosen.append((experiment, stroke_of_experiment(number), key))
    accuracy = _several((one.label, line, curve(one, "eval", key)) for one, line, key in chosen)
    loss = _several((one.label, line, curve(one, "train", "loss")) for one, line, _ in chosen)
    return [
        Panel("accuracy", "Top-1 accuracy (%)", accuracy),
        Panel("training-loss", "Training loss, of each experiment's own objective", loss),
    ]


def experiment_panels(experiment: Experiment) -> list[Panel]:
    """Return what is known of one experiment over its epochs."""
    losses = _LOSSES if taught(experiment.first) else _LOSSES[:1]
    return [
        Panel("accuracy", "Top-1 accuracy (%)", _by_head(experiment, "top1")),
        Panel("evaluation-loss", "Evaluation loss", _by_head(experiment, "loss")),
        Panel(
            "training-loss",
            "Training loss",
            _several((label, line, curve(experiment, "train", key)) for key, label, line in losses),
            legend=len(losses) > 1,
        ),
        Panel(
            "learning-rate",
            "Learning rate (\N{MULTIPLICATION SIGN}10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE})",
            _train(experiment, "learning_rate", 1e3),
            from_zero=True,
        ),
        Panel(
            "speed", "Images per second", _train(experiment, "images_per_second"), from_zero=True
        ),
        Panel(
            "input-wait",
            "Time spent waiting for input (%)",
            _train(experiment, "input_wait", 100),
            from_zero=True,
            missing="Not measured: runs of earlier versions have no input_wait in their log.",
        ),
    ]


def _by_head(experiment: Experiment, metric: str) -> tuple[Series, ...]:
    """Return a curve for each head, whole for raw and dashed for averaged weights."""

    def of(kind: str, head: str) -> Float[np.ndarray, "3 points"]:
        points = curve(experiment, "eval", f"{kind}/{head}/{metric}")
        # Bands of all six would hide each other.
        return points if kind == "raw" else points * np.array([[1.0], [1.0], [0.0]])

    return _several(
        (f"{name}, {words}", Stroke(head, dash), of(kind, head))
        for head, name in HEAD_NAMES.items()
        for kind, words, dash in (("raw", "raw", 0), ("ema", "EMA", 1))
    )


def _train(experiment: Experiment, key: str, factor: float = 1.0) -> tuple[Series, ...]:
    """Return the one curve of something logged in training, multiplied."""
    points = curve(experiment, "train", key) * np.array([[1.0], [factor], [factor]])
    return _several([("", Stroke("ink"), points)])


def _several(
    curves: Iterable[tuple[str, Stroke, Float[np.ndarray, "3 points"]]],
) -> tuple[Series, ...]:
    """Return those curves that have points."""
    return tuple(Series(label, line, points) for label, line, points in curves if points.size)
