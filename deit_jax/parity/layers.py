"""How far two results of one layer are apart, and which layer is the first to disagree."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Measure = Literal["relative", "maximum"]
Values = Float[np.ndarray, "..."]


class Difference(NamedTuple):
    """Two results of one layer beside each other.

    Attributes:
        layer: its name, as in published weights.
        maximum: largest absolute difference; NaN where either side is not finite.
        relative: that, over the largest absolute value of PyTorch's side.
        cosine: of the angle between both, flattened.
        size: numbers compared.
        detail: what more there is to say, or "".
    """

    layer: str
    maximum: float
    relative: float
    cosine: float
    size: int
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """One thing compared, layer by layer in the order of computation.

    Attributes:
        title: what was compared.
        rows: a difference for each layer.
        tolerance: the largest that counts as agreement.
        measure: which of a difference's numbers the tolerance is for.
    """

    title: str
    rows: tuple[Difference, ...]
    tolerance: float
    measure: Measure = "relative"

    def agrees(self, row: Difference) -> bool:
        """Return whether a row is within tolerance; NaN never is."""
        return getattr(row, self.measure) <= self.tolerance

    @property
    def first(self) -> Difference | None:
        """The first layer beyond tolerance, or None."""
        return next((row for row in self.rows if not self.agrees(row)), None)

    @property
    def worst(self) -> Difference:
        """The row with the largest difference; a NaN counts as larger than any number."""
        return _largest(self.rows, self.measure)


def layer_difference(layer: str, ours: Values, theirs: Values, detail: str = "") -> Difference:
    """Measure how far two arrays are apart, in float64.

    Raises:
        ValueError: the shapes differ, so that nothing can be compared.
    """
    if ours.shape != theirs.shape:
        raise ValueError(
            f"The result of {layer} has shape {ours.shape} here and {theirs.shape} in PyTorch: "
            "the two models are not of the same architecture."
        )
    a, b = np.asarray(ours, np.float64).ravel(), np.asarray(theirs, np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(layer, math.nan, math.nan, math.nan, a.size, "not finite")
    maximum, scale = float(np.abs(a - b).max(initial=0)), float(np.abs(b).max(initial=0))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    # Two zeros agree; a zero beside something else has no direction.
    cosine = float(a @ b) / lengths if lengths else float(maximum == 0)
    relative = maximum / scale if scale else (0.0 if maximum == 0 else math.inf)
    return Difference(layer, maximum, relative, min(cosine, 1.0), a.size, detail)


def layer_of(path: tuple[str, ...], layers: Collection[str]) -> str:
    """Return which of `layers` (names of intermediate results) a parameter belongs to.

    Tokens and position embeddings are one layer; each normalisation of a transformer block goes
    with the branch it stands before. A model without intermediate results has its first keys.
    """
    if path[0] in ("cls_token", "dist_token", "pos_embed"):
        return "tokens"
    prefixes = (".".join(path[:length]) for length in range(len(path), 0, -1))
    name = next((prefix for prefix in prefixes if prefix in layers), path[0])
    return name.replace(".norm1", ".attn").replace(".norm2", ".mlp")


def by_layer(
    tensors: Mapping[str, tuple[str, Difference]], measure: Measure = "relative"
) -> tuple[Difference, ...]:
    """Keep of each layer the tensor with the largest difference, named in `detail`.

    Args:
        tensors: by parameter name, its layer and its difference, in the order to keep.
        measure: of the differences.
    """
    found: dict[str, list[Difference]] = {}
    for name, (layer, row) in tensors.items():
        detail = name if not row.detail else f"{name}, {row.detail}"
        found.setdefault(layer, []).append(row._replace(layer=layer, detail=detail))
    return tuple(
        _largest(rows, measure)._replace(size=sum(row.size for row in rows))
        for rows in found.values()
    )


def _largest(rows: Sequence[Difference], measure: Measure) -> Difference:
    """Return the row with the largest difference; a NaN counts as larger than any number."""

    def key(row: Difference) -> float:
        value = getattr(row, measure)
        return math.inf if math.isnan(value) else value

    return max(rows, key=key)
