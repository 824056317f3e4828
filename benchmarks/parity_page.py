"""Statistics and page of `benchmarks.statistical_parity`."""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from deit_jax.reports.experiments import spread

CONFIDENCE = 0.95
# Decided before the first comparison was made: what difference would matter to a user. Of 800
# images, one and a half percent are 12; the loss is in nats.
MARGINS = {"top-1": 1.5, "loss": 0.05}


@dataclass(frozen=True)
class Measured:
    """The runs of one kind of supervision, a result for each seed on either side."""

    kind: str
    ours: Sequence[dict[str, Any]]
    theirs: Sequence[dict[str, Any]]


class Interval(NamedTuple):
    """A difference of means and the bounds of its confidence interval."""

    difference: float
    low: float
    high: float


class Quantity(NamedTuple):
    """One line of the table: what it is, its unit, and where it stands in a result."""

    name: str
    unit: str
    read: Callable[[dict[str, Any]], float]


def welch(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the confidence interval of mean(a) - mean(b) for unequal variances (Welch 1947).

    The degrees of freedom are those of Welch and Satterthwaite.
    """
    one, other = spread(a), spread(b)
    if one.deviation is None or other.deviation is None:
        raise ValueError("A confidence interval needs at least two values on both sides.")
    shares = [one.deviation**2 / len(a), other.deviation**2 / len(b)]
    error = math.sqrt(sum(shares))
    difference = one.mean - other.mean
    if not error:
        return Interval(difference, difference, difference)
    freedom = error**4 / (shares[0] ** 2 / (len(a) - 1) + shares[1] ** 2 / (len(b) - 1))
    half = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    return Interval(difference, difference - half, difference + half)


def paired(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the confidence interval of the mean of a - b, whose values belong together in pairs.

    The pairs are of one seed each (Student 1908).
    """
    mean, deviation = spread([x - y for x, y in zip(a, b, strict=True)])
    if deviation is None:
        raise ValueError("A confidence interval needs at least two pairs.")
    quantile = float(stats.t.ppf((1 + confidence) / 2, len(a) - 1))
    half = quantile * deviation / math.sqrt(len(a))
    return Interval(mean, mean - half, mean + half)


def quantities(kind: str) -> list[Quantity]:
    """Return what is compared; the first two decide."""
    head = "class" if kind == "none" else "fused"

    def at(weights: str, head: str, key: str) -> Callable[[dict[str, Any]], float]:
        return lambda result: result["evaluation"][weights][head][key]

    found = [
        Quantity(f"**accuracy ({head})**", "top-1", at("raw", head, "top1")),
        Quantity(f"**evaluation loss ({head})**", "loss", at("raw", head, "loss")),
        Quantity("training loss, last steps", "loss", lambda result: result["train_loss"]),
        Quantity(f"accuracy of the moving average ({head})", "top-1", at("ema", head, "top1")),
    ]
    for other in ("class", "distillation") if kind != "none" else ():
        found.append(Quantity(f"accuracy ({other})", "top-1", at("raw", other, "top1")))
    return found


def table(measured: Sequence[Measured]) -> str:
    """Return the Markdown table, a row for each kind and quantity."""
    lines = [
        "| supervision | quantity | deit_jax | PyTorch | difference (95 %) | margin | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        for quantity in quantities(one.kind):
            ours, theirs = ([quantity.read(r) for r in runs] for runs in (one.ours, one.theirs))
            interval, margin = welch(ours, theirs), MARGINS[quantity.unit]
            cells = [one.kind, quantity.name, _mean(ours), _mean(theirs), _bounds(interval)]
            lines.append(f"| {' | '.join([*cells, str(margin), verdict(interval, margin)])} |")
    return "\n".join(lines)


def verdict(interval: Interval, margin: float) -> str:
    """Say in words what the interval shows."""
    contains_zero = interval.low <= 0 <= interval.high
    within = -margin < interval.low and interval.high < margin
    if within:
        return "equivalent" if contains_zero else "equivalent, though not equal"
    return "no difference shown, margin not resolved" if contains_zero else "**different**"


def write_page(path: Path, measured: Sequence[Measured], facts: dict[str, Any], flags: str) -> None:
    """Write method, table and limits as the measured figures are.

    Args:
        path: of the page.
        measured: all kinds.
        facts: contents of the `config.json` of one run.
        flags: of the command.
    """
    config, versions = facts["config"], facts["versions"]
    results = [result for one in measured for result in (*one.ours, *one.theirs)]
    steps = {result["steps"] for result in results}
    import torch

    from benchmarks.hardware import describe_machine

    machine = describe_machine()
    text = _PAGE.format(
        flags=f" {flags}" if flags else "",
        seeds=len(measured[0].ours),
        kinds=", ".join(one.kind for one in measured),
        steps=", ".join(map(str, sorted(steps))),
        batch=config["training"]["batch_size"],
        last=measured[0].theirs[0]["last_steps"],
        table=table(measured),
        lines=sum(len(quantities(one.kind)) for one in measured),
        parameters=", ".join(sorted({f"{r['parameters']:,}" for r in results})),
        top1=MARGINS["top-1"],
        loss=MARGINS["loss"],
        machine=f"{machine['cpu']}, {machine['cores']} cores",
        jax=versions["jax"],
        flax=versions["flax"],
        torch=torch.__version__,
        python=platform.python_version(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _mean(values: Sequence[float]) -> str:
    mean, deviation = spread(values)
    digits = 2 if mean > 10 else 3
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _bounds(interval: Interval) -> str:
    digits = 2 if max(map(abs, interval)) > 0.2 else 3
    low, high = (f"{value:+.{digits}f}" for value in interval[1:])
    return f"{interval.difference:+.{digits}f} [{low}, {high}]"


_PAGE = """\
# Parity with PyTorch over seeds

`tests/training/test_training_parity.py` feeds both sides the same draws and finds the same losses
step by step. This page asks the other question: with **no draw in common**, does a user who trains
here end where a user of PyTorch ends?

    python -m benchmarks.statistical_parity{flags}

- **Model**: `deit_micro_patch4_16` and its distilled twin, {parameters} parameters.
- **Data**: the digits of scikit-learn; 597 images to train on, measured on the 800 test images.
- **Recipe**: `configs/digits.py` on all training images: AdamW, warm-up and cosine, label smoothing
  0.1, Mixup, CutMix, random shifts, moving average; {steps} steps of {batch} images.
- **Supervision**: {kinds}. The teacher is one RegNetY, trained here once, converted, and loaded by
  both sides.
- **Here**: `train.py` itself.
- **PyTorch**: `benchmarks/torch_training.py`, plain PyTorch {torch} with `torch.optim.AdamW`,
  torchvision's crop, timm's Mixup, and its own initialisation and order.
- **Seeds**: {seeds} on each side.

Mean ± sample standard deviation over the seeds; difference of the means (deit_jax - PyTorch) with
Welch's 95 % confidence interval. The margins were fixed before anything was compared: {top1}
percentage points of top-1, {loss} nats of loss. The two **bold** lines of each supervision decide;
the training loss is the mean over the last {last} steps.

{table}

*Equivalent*: the whole interval lies within the margin; *though not equal*: it misses zero.
*No difference shown*: the interval contains zero but reaches beyond the margin, so more seeds would
be needed to say more. *Different*: neither. Of {lines} intervals of 95 %, one in twenty is expected
to miss zero where nothing differs.

What this does not show: RandAugment, erasing and repeated augmentation have parity tests of their
own (docs/augmentation.md) and are off here; the model and the data are small; it is no statement
about ImageNet.

{machine}; Python {python}, JAX {jax}, Flax {flax}, PyTorch {torch}.
"""
