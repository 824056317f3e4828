"""Colours that mean the same in every picture and on the page, and lines that go with them.

A head has one colour throughout; experiments, which are compared beside each other, have others.
Told apart with any colour vision; each has a second shade for a dark page.
"""

from typing import Final, NamedTuple


class Shades(NamedTuple):
    """Of one meaning: on white, and on a dark page."""

    light: str
    dark: str


HEAD_NAMES: Final = {
    "class": "class head",
    "distillation": "distillation head",
    "fused": "both heads",
}
"""Names of colours, which are those of the heads in a log, and what they are called."""

EXPERIMENTS: Final = ("first", "second", "third", "fourth")
"""Names of the colours of experiments, in their order; after the last, lines are dashed."""

COLOURS: Final = {
    # Okabe and Ito's blue, vermilion and bluish green.
    "class": Shades("#0072B2", "#5AB4F0"),
    "distillation": Shades("#D55E00", "#FF8F4A"),
    "fused": Shades("#009E73", "#3CCF9E"),
    "first": Shades("#882255", "#E58BBB"),
    "second": Shades("#B07D00", "#E9C05A"),
    "third": Shades("#332288", "#A79BFF"),
    "fourth": Shades("#777777", "#A9A9A9"),
    "ink": Shades("#1A1A1A", "#EDEDED"),
    "muted": Shades("#666666", "#A0A0A0"),
    "grid": Shades("#E4E4E4", "#333333"),
}

DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (6, 3), (1.5, 2.5), (8, 3, 1.5, 3))
"""Lengths of lines and gaps, in points: whole, dashed, dotted, both."""


class Stroke(NamedTuple):
    """How a curve is drawn: the name of its colour, and which of `DASHES`."""

    colour: str
    dash: int = 0


def stroke_of_experiment(number: int) -> Stroke:
    """Return the line of an experiment by its number, from 0."""
    return Stroke(EXPERIMENTS[number % len(EXPERIMENTS)], number // len(EXPERIMENTS) % len(DASHES))
