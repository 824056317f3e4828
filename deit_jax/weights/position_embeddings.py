"""Position embeddings for another number of patches (paper, section 6; REFERENCE: main.py)."""

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

Grid = tuple[int, int]
"""Patches along height and width."""

ResizeRule = Literal["reference", "timm"]


def square_grid(patches: int) -> Grid | None:
    """Return the grid of a square image that is cut into so many patches, or None."""
    side = math.isqrt(max(patches, 0))
    return (side, side) if side and side * side == patches else None


def resize_positions(
    positions: Float[np.ndarray, "1 tokens width"],
    old: Grid,
    new: Grid,
    *,
    rule: ResizeRule = "reference",
) -> Float[np.ndarray, "1 new_tokens width"]:
    """Interpolate the embeddings of the patches; those of the prefix tokens stay as they are.

    Args:
        positions: prefix tokens first, then patches row by row.
        old: grid of `positions`.
        new: grid wanted.
        rule: "reference": bicubic with a = -0.75, edge clamped, no antialiasing: PyTorch's
            `interpolate(mode="bicubic")` as the reference fine-tunes with, which about preserves
            the vectors' norms. "timm": the same call with `antialias=True`, which has a = -0.5
            and, when it shrinks, a wider kernel.

    Returns:
        Float32. Computed in float64.

    Raises:
        ValueError: the rule is neither, or `positions` has no room for the old grid.
    """
    if rule not in get_args(ResizeRule):
        raise ValueError(
            f"There is no position_resize {rule!r}; choose {' or '.join(get_args(ResizeRule))}."
        )
    prefix = positions.shape[1] - old[0] * old[1]
    if prefix < 0:
        raise ValueError(
            f"{positions.shape[1]} position embeddings are too few for {old[0]}x{old[1]} patches."
        )
    wide = positions[0].astype(np.float64)
    grid = wide[prefix:].reshape(*old, -1)
    matrix = _clamped if rule == "reference" else _antialiased
    grid = np.einsum("Yy,yxd->Yxd", matrix(old[0], new[0]), grid)
    grid = np.einsum("Xx,Yxd->YXd", matrix(old[1], new[1]), grid)
    resized = np.concatenate([wide[:prefix], grid.reshape(new[0] * new[1], -1)])
    return resized[None].astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' convolution kernel."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _clamped(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Four taps around each output pixel's centre; those outside fall on the edge."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    taps = np.floor(centres)[:, None] + np.arange(-1, 3)
    weights = _cubic(centres[:, None] - taps, -0.75)
    matrix = np.zeros((new, old))
    rows = np.repeat(np.arange(new), 4)
    np.add.at(matrix, (rows, np.clip(taps, 0, old - 1).astype(int).ravel()), weights.ravel())
    return matrix


def _antialiased(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return a kernel, stretched where output pixels are larger; taps outside are left out."""
    scale = old / new
    stretch = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    weights = _cubic((np.arange(old) + 0.5 - centres[:, None]) / stretch, -0.5)
    return weights / weights.sum(1, keepdims=True)
