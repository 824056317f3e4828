"""Pictures of attention: what class and distillation token look at, over what the model was shown.

Colours are matplotlib's `inferno` and `coolwarm`, perceptually even, over the image in grey.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from deit_jax.reports.figures import literal, new_figure, save

TOKENS = ("class token", "distillation token")
DIFFERENCE = "class - distillation"
_OVERVIEW = "overview.png"
_ALL_HEADS = dict(
    zip((*TOKENS, DIFFERENCE), ("class.png", "distillation.png", "difference.png"), strict=True)
)
# Among what is drawn of a block, after its heads.
_MEAN, _ROLLOUT = -2, -1
_MOST_BLOCKS = 4
_GAP = 0.05
# In inches; room for a title.
_NARROWEST = 3.6
_COLOUR_SHARE = 0.65
_PAPER = {"learned": 0.06, "final norm": 0.93}

_Grids = Float[np.ndarray, "depth heads rows columns"]


@dataclass(frozen=True)
class Seen:
    """One image and what a prefix token looked at in it, for each prefix token.

    Attributes:
        title: name of the image, and what of it is drawn.
        pixels: exactly what the model was shown, before it was normalised.
        heads: shares of each token's attention that go to the patches.
        rollout: the same from the input up to each block, in place of heads.
    """

    title: str
    pixels: UInt8[np.ndarray, "height width 3"]
    heads: Float[np.ndarray, "prefix depth heads rows columns"]
    rollout: Float[np.ndarray, "prefix depth rows columns"]

    @property
    def rows(self) -> list[tuple[str, _Grids]]:
        """What is drawn one below the other: name; heads, their mean and rollout by block."""
        parts = [self.heads, self.heads.mean(2, keepdims=True), self.rollout[:, :, None]]
        every = np.concatenate(parts, axis=2)
        rows = list(zip(TOKENS, every, strict=False))
        return [*rows, (DIFFERENCE, every[0] - every[1])] if len(rows) > 1 else rows


def draw_attention(seen: Seen, folder: Path) -> list[str]:
    """Write an overview, and all blocks and heads of each token and of their difference.

    Args:
        seen: what is drawn.
        folder: of the PNGs; made if it is missing. Those of an earlier model in it are replaced or
            deleted.

    Returns:
        The names of the files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_OVERVIEW, *_ALL_HEADS.values()):
        (folder / name).unlink(missing_ok=True)
    _overview(seen, folder / _OVERVIEW)
    for name, values in seen.rows:
        _all_heads(seen, name, values, folder / _ALL_HEADS[name])
    return [_OVERVIEW, *(_ALL_HEADS[name] for name, _ in seen.rows)]


def draw_cosines(
    cosines: Float[np.ndarray, "layers images"], layers: Sequence[str], model: str, path: Path
) -> None:
    """Write a PNG of how alike both tokens are, layer by layer, beside the paper's two figures.

    Args:
        cosines: of every image.
        layers: their names.
        model: its name.
        path: of the PNG.
    """
    figure = new_figure(max(4.6, 1.4 + 0.3 * len(layers)), 3.2, dpi=200)
    axes = figure.subplots()
    places = np.arange(len(layers))
    images = cosines.shape[1]
    if images > 1:
        axes.fill_between(places, cosines.min(1), cosines.max(1), color="#0072B2", alpha=0.18, lw=0)
    mean = "1 image" if images == 1 else f"mean and range of {images} images"
    axes.plot(places, cosines.mean(1), "o-", color="#0072B2", ms=4, lw=1.5, label=mean)
    paper = [layers.index(layer) for layer in _PAPER]
    axes.plot(
        paper, list(_PAPER.values()), "D", ms=6, mfc="none", mew=1.4, color="#D55E00",
        label="paper, on ImageNet",
    )  # fmt: skip
    axes.axhline(0, color="0.75", lw=0.8, zorder=0)
    axes.set_xticks(places, layers, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_ylim(min(-0.08, cosines.min() - 0.05), 1.05)
    axes.set_ylabel("cosine", fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(literal(f"{model}: class and distillation token"), fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", lw=0.7)
    axes.legend(frameon=False, fontsize=8, loc="best")
    save(figure, path)


class _Canvas:
    """A figure of (width, height) in inches, drawn on in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        width = max(width, _NARROWEST)
        self.figure = new_figure(width, height, dpi=200, layout=None)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()

    def picture(self, rgb: np.ndarray, x: float, y: float, width: float, height: float) -> None:
        extent = (x, x + width, y + height, y)
        self.axes.imshow(rgb, extent=extent, aspect="auto", interpolation="antialiased")
        # Drawing a picture moves the limits.
        self.axes.set(xlim=(0, self.figure.get_figwidth()), ylim=(self.figure.get_figheight(), 0))

    def text(self, x: float, y: float, words: str, size: float, **options: Any) -> None:
        options = {"va": "center", "ha": "center"} | options
        self.axes.text(x, y, literal(words), fontsize=size, **options)


def _overview(seen: Seen, path: Path) -> None:
    """Draw the image; heads on average, for some blocks, and the rollout; a row for each token."""
    rows, last = seen.rows, seen.heads.shape[1] - 1
    blocks = np.unique(np.linspace(0, last, min(last + 1, _MOST_BLOCKS)).round().astype(int))
    columns = [(f"block {block}", block, _MEAN) for block in blocks]
    columns.append((f"rollout to block {last}", last, _ROLLOUT))
    width, height = _panel(seen.pixels, 1.45)
    left, top, bar = 0.26, 0.45, 0.34
    # A colour bar below the tokens, which share it, and one below their difference.
    tokens = len(seen.heads)
    ys = [top + row * (height + _GAP) + (bar if row >= tokens else 0) for row in range(len(rows))]
    xs = [left + column * (width + _GAP) for column in range(len(columns) + 1)]
    canvas = _Canvas(xs[-1] + width + 0.05, ys[-1] + height + bar)
    canvas.text(left, 0.12, seen.title, 8, ha="left")
    for x, title in zip(xs, ["shown", *(title for title, *_ in columns)], strict=True):
        canvas.text(x + width / 2, top - 0.1, title, 8)
    for y, (name, values) in zip(ys, rows, strict=True):
        canvas.text(left / 2, y + height / 2, name, 8, rotation=90)
        canvas.picture(seen.pixels, left, y, width, height)
        alike = [v for n, v in rows if (n == DIFFERENCE) == (name == DIFFERENCE)]
        for x, (_, block, which) in zip(xs[1:], columns, strict=True):
            largest = max(float(np.abs(grids[block, which]).max()) for grids in alike)
            picture = _over(seen.pixels, values[block, which], largest, name == DIFFERENCE)
            canvas.picture(picture, x, y, width, height)
            if name in (DIFFERENCE, TOKENS[tokens - 1]):
                _bar(canvas, (x, y + height + 0.06, width), largest, name == DIFFERENCE)
    save(canvas.figure, path)


def _bar(canvas: _Canvas, place: tuple[float, float, float], largest: float, signed: bool) -> None:
    """Say what colours mean, in percent of a token's attention on one patch."""
    x, y, width = place
    low = -largest if signed else 0.0
    colours = _colours(np.linspace(low, largest, 256)[None], largest, signed)
    canvas.picture(colours, x, y, width, 0.07)
    beside: Any = {"ha": "left"}, {"ha": "right"}
    sign = "+" if signed else ""
    canvas.text(x, y + 0.15, f"{100 * low:.2g}", 6.5, **beside[0])
    canvas.text(x + width, y + 0.15, f"{sign}{100 * largest:.2g} %", 6.5, **beside[1])
    if signed:
        canvas.text(x + width / 2, y + 0.15, "0", 6.5)


def _all_heads(seen: Seen, name: str, values: _Grids, path: Path) -> None:
    """Draw all heads of all blocks, and in two more columns their mean and the rollout."""
    depth, columns = values.shape[:2]
    width, height = _panel(seen.pixels, 0.9)
    left, top, below = 0.26, 0.62, 0.17
    canvas = _Canvas(left + columns * (width + _GAP), top + depth * (height + below))
    what = "absolute value" if name == DIFFERENCE else "value"
    canvas.text(left, 0.12, f"{seen.title}: {name}", 8, ha="left")
    note = f"Below each panel: its largest {what}, to which its colours are scaled."
    canvas.text(left, 0.29, note, 6.5, ha="left", color="0.35")
    titles = [*(f"head {head}" for head in range(columns - 2)), "mean", "rollout"]
    for column, title in enumerate(titles):
        canvas.text(left + column * (width + _GAP) + width / 2, top - 0.08, title, 7)
    for block in range(depth):
        y = top + block * (height + below)
        canvas.text(left / 2, y + height / 2, f"block {block}", 7, rotation=90)
        for column, grid in enumerate(values[block]):
            x, largest = left + column * (width + _GAP), float(np.abs(grid).max())
            picture = _over(seen.pixels, grid, largest, name == DIFFERENCE)
            canvas.picture(picture, x, y, width, height)
            canvas.text(x + width / 2, y + height + 0.075, f"{100 * largest:.2g} %", 6)
    save(canvas.figure, path)


def _panel(pixels: np.ndarray, side: float) -> tuple[float, float]:
    """Return (width, height) in inches of the area of a square, in the image's proportions."""
    stretch = math.sqrt(pixels.shape[1] / pixels.shape[0])
    return side * stretch, side / stretch


def _over(
    pixels: UInt8[np.ndarray, "height width 3"],
    grid: Float[np.ndarray, "rows columns"],
    largest: float,
    signed: bool,
) -> Float[np.ndarray, "height width 3"]:
    """Lay a colour for each patch over the image in grey."""
    # Of less contrast, so that colours are not taken for lighter or darker than they are.
    grey = 0.2 + 0.6 * (pixels @ np.array([0.299, 0.587, 0.114])) / 255
    tall, wide = pixels.shape[0] // grid.shape[0], pixels.shape[1] // grid.shape[1]
    patches = _colours(grid, largest, signed).repeat(tall, 0).repeat(wide, 1)
    return _COLOUR_SHARE * patches + (1 - _COLOUR_SHARE) * grey[..., None]


def _colours(
    grid: Float[np.ndarray, "rows columns"], largest: float, signed: bool
) -> Float[np.ndarray, "rows columns 3"]:
    from matplotlib import colormaps

    scaled = grid / max(largest, np.finfo(np.float32).tiny)
    return colormaps["coolwarm" if signed else "inferno"]((scaled + 1) / 2 if signed else scaled)[
        ..., :3
    ]
