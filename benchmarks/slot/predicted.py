"""What was expected of a card before it was measured, to be held against what it did."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.report import table
from benchmarks.slot.results import Record

HEADER = ["what", "predicted", "measured", "on"]


@dataclass(frozen=True)
class Prediction:
    """An expectation of one card.

    Attributes:
        what: for people.
        value: the expectation, in `unit`; None where there is none.
        unit: of both numbers.
        name: of the task that measures it.
        part: of the task.
        key: in its result.
        measured: the number of a page from before there were slots, and its date; None without.
    """

    what: str
    value: float | None
    unit: str
    name: str
    part: str
    key: str
    measured: tuple[float, str] | None = None


def _variant(letter: str, what: str, value: float | None) -> Prediction:
    key = "ms in full, by slope"
    return Prediction(f"{letter}: {what}", value, "ms", "variants", letter, key)


H200 = (
    Prediction(
        "A: DeiT-S, train step of 2026-11-26",
        None,
        "ms",
        "variants",
        "A in full",
        "ms in full",
        (30.26, "2026-11-26"),
    ),
    _variant("B", "products by cuBLAS, none by Triton", None),
    _variant("C", "B, cuBLASLt, exhaustive search", None),
    _variant("D", "B, attention without padding", 29.7),
    _variant("E", "D, LayerNorm keeps its statistics", 28.9),
    _variant("F", "E, separate projections: as it is", 25.2),
    _variant("G", "F, bfloat16 residual", 22.1),
    _variant("K", "G, fused normalisation", 21.0),
    _variant("L", "K, GELU fused into products", 18.2),
    _variant("T", "F, products by Triton where it is faster", None),
    Prediction("F: DeiT-S, train step", 25.2, "ms", "variants", "F in full", "ms in full"),
    Prediction("G: DeiT-S, train step", 22.1, "ms", "variants", "G in full", "ms in full"),
    Prediction("K: DeiT-S, train step", 21.0, "ms", "variants", "K in full", "ms in full"),
    Prediction("L: DeiT-S, train step", 18.2, "ms", "variants", "L in full", "ms in full"),
    Prediction("G: DeiT-B, train step", 67.6, "ms", "variants", "large, G in full", "ms in full"),
    Prediction("K: DeiT-B, train step", 65.3, "ms", "variants", "large, K in full", "ms in full"),
    Prediction("L: DeiT-B, train step", 59.2, "ms", "variants", "large, L in full", "ms in full"),
    Prediction(
        "torch.compile: DeiT-S, train step",
        None,
        "ms",
        "comparison",
        "train",
        "torch_compile, ms",
        (28.54, "2026-11-26"),
    ),
    Prediction(
        "DeiT-S, inference",
        None,
        "ms",
        "comparison",
        "inference",
        "deit_jax, ms",
        (9.324, "2026-11-26"),
    ),
    Prediction(
        "torch.compile: DeiT-S, inference",
        None,
        "ms",
        "comparison",
        "inference",
        "torch_compile, ms",
        (9.677, "2026-11-26"),
    ),
    Prediction("RegNetY-16GF, inference", 45.0, "ms", "teacher", "teacher alone", "ms"),
)
"""Batch 256, bfloat16. Variants: the compiler's plan at 790 TFLOP/s and 4.3 TB/s, longer by as
much as A, planned at 19.80 ms, took on 2026-11-26. The teacher: its published inference on an RTX
Pro 6000 (timm: 3,141 images/s), scaled by the bandwidth."""

PREDICTIONS = {"NVIDIA H200": H200}


def predicted_table(
    predictions: tuple[Prediction, ...], measured: Mapping[tuple[str, str], Record]
) -> str:
    """Return predictions beside results, as a Markdown table; what is not measured is open."""
    rows = []
    for prediction in predictions:
        expected = "-" if prediction.value is None else f"{prediction.value:g} {prediction.unit}"
        found = measured.get((prediction.name, prediction.part))
        if found and prediction.key in found["result"]:
            value, date = found["result"][prediction.key], found["date"][:10]
        elif prediction.measured:
            value, date = prediction.measured
        else:
            rows.append([prediction.what, expected, "open", ""])
            continue
        rows.append([prediction.what, expected, f"{value:.4g} {prediction.unit}", date])
    return table(HEADER, rows)
