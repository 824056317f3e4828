"""A panel as SVG inside the page: its colours follow the page, so that it can be dark."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deit_jax.reports.markup import Markup, element
from deit_jax.reports.palette import DASHES
from deit_jax.reports.panels import Panel, Series

WIDTH, HEIGHT = 400, 240
# To the right there is room for half a label, such as "12.5k".
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 8, 34
# Finer than the eye: of longer series every n-th point is drawn.
_MOST_POINTS = 400


class Axis(NamedTuple):
    """From values to places.

    Attributes:
        low, high: values at both ends.
        start, end: their places.
        ticks: values that are labelled.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Return where a value is."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def chart(panel: Panel) -> Markup:
    """Return an `<svg>` of a panel that has curves."""
    epochs = np.concatenate([series.points[0] for series in panel.series])
    across = axis(0.0, float(epochs.max()), _LEFT, WIDTH - _RIGHT, 5)
    low = min(float((s.points[1] - s.points[2]).min()) for s in panel.series)
    high = max(float((s.points[1] + s.points[2]).max()) for s in panel.series)
    up = axis(0.0 if panel.from_zero else low, high, HEIGHT - _BOTTOM, _TOP, 4)
    parts = [*_frame(across, up), *(_curve(series, across, up) for series in panel.series)]
    size = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", *parts, viewBox=size, role="img", aria_label=panel.title)


def axis(low: float, high: float, start: float, end: float, count: int) -> Axis:
    """Return an axis with about so many round ticks, which reaches from the least to the most."""
    if high - low <= 1e-9 * max(abs(high), abs(low), 1e-30):
        # A constant still has a place: in the middle.
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    horizontal = end > start
    if horizontal and math.ceil(high / step) * step <= 1.02 * high:
        # 599 epochs end at a tick of 600.
        high = math.ceil(high / step) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(number * step for number in range(first, last + 1))
    # Curves keep a little away from the edges above and below.
    room = 0.0 if horizontal else 0.04 * (high - low)
    return Axis(low - room if low else low, high + room, start, end, ticks)


def labels(ticks: Sequence[float]) -> list[str]:
    """Write ticks with as many digits as all of them need; thousands as "k"."""
    most = max(map(abs, ticks), default=0.0)
    unit, suffix = (1000, "k") if most >= 1e4 else (1, "")
    values = [tick / unit for tick in ticks]
    digits = next(n for n in range(12) if n == 11 or all(_exact(value, n) for value in values))
    return [f"{value:.{digits}f}{suffix if value else ''}" for value in values]


def _exact(value: float, digits: int) -> bool:
    return abs(round(value, digits) - value) <= 1e-9 * max(1.0, abs(value)) / 10**digits


def _frame(across: Axis, up: Axis) -> list[Markup]:
    bottom = up.start
    parts = []
    for tick, text in zip(up.ticks, labels(up.ticks), strict=True):
        y = f"{up.place(tick):.1f}"
        parts += [
            element("line", x1=_LEFT, x2=across.end, y1=y, y2=y, class_="grid"),
            element("text", text, x=_LEFT - 6, y=y, dy="0.35em", text_anchor="end"),
        ]
    for tick, text in zip(across.ticks, labels(across.ticks), strict=True):
        x = f"{across.place(tick):.1f}"
        parts.append(element("text", text, x=x, y=bottom + 15, text_anchor="middle"))
    parts += [
        element("line", x1=_LEFT, x2=across.end, y1=bottom, y2=bottom, class_="axis"),
        element("text", "epochs", x=across.end, y=bottom + 30, text_anchor="end"),
    ]
    return parts


def _curve(series: Series, across: Axis, up: Axis) -> Markup:
    """Draw the band of one standard deviation, and the mean; a single point is a dot.

    The dot is hollow where the line would be dashed.
    """
    points = thinned(series.points)
    epochs, mean, deviation = points
    colour = f"var(--{series.line.colour})"
    if len(epochs) == 1:
        at = {"cx": f"{across.place(epochs[0]):.1f}", "cy": f"{up.place(mean[0]):.1f}"}
        fill = "none" if series.line.dash else colour
        title = element("title", series.label)
        return element("circle", title, r=3, fill=fill, stroke=colour, stroke_width=1.5, **at)
    parts: list[str] = [element("title", series.label)] if series.label else []
    if deviation.any():
        over = _places(epochs, mean + deviation, across, up)
        # A share is never negative, though a mean less its deviation may be.
        least = np.maximum(mean - deviation, up.low)
        under = _places(epochs[::-1], least[::-1], across, up)
        parts.append(element("polygon", points=f"{over} {under}", fill=colour, class_="band"))
    dashes = " ".join(f"{length:g}" for length in DASHES[series.line.dash])
    more = {"stroke_dasharray": dashes} if dashes else {}
    line = _places(epochs, mean, across, up)
    parts.append(element("polyline", points=line, stroke=colour, class_="curve", **more))
    return element("g", *parts)


def thinned(points: Float[np.ndarray, "3 points"]) -> Float[np.ndarray, "3 fewer"]:
    """Return every n-th point, and the last."""
    count = points.shape[1]
    step = -(-count // _MOST_POINTS)
    kept = sorted({*range(0, count, step), count - 1})
    return points[:, kept]


def _places(epochs: np.ndarray, values: np.ndarray, across: Axis, up: Axis) -> str:
    return " ".join(
        f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in zip(epochs, values, strict=True)
    )
