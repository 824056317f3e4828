"""The primitive operations on pixels, and how a magnitude becomes the argument of one.

timm names 25 operations that differ only in how strength grows with the magnitude. Sixteen
primitives remain once that is taken apart (timm 1.0.31, `data/auto_augment.py`).
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LEVELS = 10.0
"""Magnitude at which an operation reaches its nominal strength."""


class Kind(IntEnum):
    """A primitive operation; its argument is given in brackets."""

    NONE = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    INVERT = 3
    POSTERIZE = 4
    """(bits that stay)"""
    SOLARIZE = 5
    """(level from which values are inverted)"""
    SOLARIZE_ADD = 6
    """(what is added to values below 128)"""
    CONTRAST = 7
    """(factor: 0 is flat grey, 1 the image)"""
    BRIGHTNESS = 8
    """(factor: 0 is black, 1 the image)"""
    COLOR = 9
    """(factor: 0 is grey, 1 the image)"""
    SHARPNESS = 10
    """(factor: 0 is smoothed, 1 the image)"""
    ROTATE = 11
    """(degrees, anticlockwise)"""
    SHEAR_X = 12
    """(source columns per row)"""
    SHEAR_Y = 13
    """(source rows per column)"""
    TRANSLATE_X = 14
    """(pixels; positive moves the content to the left)"""
    TRANSLATE_Y = 15
    """(pixels; positive moves the content up)"""
    BLUR = 16
    """(standard deviation in pixels)"""


TABLE_KINDS = tuple(kind for kind in Kind if Kind.AUTOCONTRAST <= kind <= Kind.BRIGHTNESS)
STATISTICS_KINDS = (Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.CONTRAST)
BLEND_KINDS = (Kind.COLOR, Kind.SHARPNESS)
LINE_KINDS = (Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y)


class Draw(NamedTuple):
    """What the argument of an operation may depend on; numbers or arrays of one shape."""

    level: Any
    """Magnitude, 0 to 10 unless the policy raises its upper bound."""
    sign: Any
    """+1 or -1."""
    uniform: Any
    """A further uniform draw in [0, 1)."""
    height: int
    width: int


class Operation(NamedTuple):
    """A named operation: the primitive, and its argument as a function of the draw."""

    kind: Kind
    argument: Callable[[Draw], Any]


def _none(draw: Draw) -> Any:
    return draw.level * 0.0


def _enhance(draw: Draw) -> Any:
    return draw.level / LEVELS * 1.8 + 0.1


def _enhance_increasing(draw: Draw) -> Any:
    return (1.0 + draw.sign * (draw.level / LEVELS * 0.9)).clip(0.1)


def _posterize(draw: Draw) -> Any:
    return draw.level / LEVELS * 4 // 1


def _solarize(draw: Draw) -> Any:
    return (draw.level / LEVELS * 256 // 1).clip(None, 256)


def _blur(draw: Draw) -> Any:
    return (0.1 + 1.9 * (draw.level / LEVELS)).clip(0.1, 2.0)


def _blur_random(draw: Draw) -> Any:
    largest = 2.0 * (draw.level / LEVELS).clip(0.0, 1.0)
    return 0.1 + (largest - 0.1) * draw.uniform


OPERATIONS = {
    "AutoContrast": Operation(Kind.AUTOCONTRAST, _none),
    "Equalize": Operation(Kind.EQUALIZE, _none),
    "Invert": Operation(Kind.INVERT, _none),
    "Rotate": Operation(Kind.ROTATE, lambda draw: draw.sign * (draw.level / LEVELS * 30.0)),
    "Posterize": Operation(Kind.POSTERIZE, _posterize),
    "PosterizeIncreasing": Operation(Kind.POSTERIZE, lambda draw: 4 - _posterize(draw)),
    "PosterizeOriginal": Operation(Kind.POSTERIZE, lambda draw: 4 + _posterize(draw)),
    "Solarize": Operation(Kind.SOLARIZE, _solarize),
    "SolarizeIncreasing": Operation(Kind.SOLARIZE, lambda draw: 256 - _solarize(draw)),
    "SolarizeAdd": Operation(
        Kind.SOLARIZE_ADD, lambda draw: (draw.level / LEVELS * 110 // 1).clip(None, 128)
    ),
    "Color": Operation(Kind.COLOR, _enhance),
    "ColorIncreasing": Operation(Kind.COLOR, _enhance_increasing),
    "Contrast": Operation(Kind.CONTRAST, _enhance),
    "ContrastIncreasing": Operation(Kind.CONTRAST, _enhance_increasing),
    "Brightness": Operation(Kind.BRIGHTNESS, _enhance),
    "BrightnessIncreasing": Operation(Kind.BRIGHTNESS, _enhance_increasing),
    "Sharpness": Operation(Kind.SHARPNESS, _enhance),
    "SharpnessIncreasing": Operation(Kind.SHARPNESS, _enhance_increasing),
    "ShearX": Operation(Kind.SHEAR_X, lambda draw: draw.sign * (draw.level / LEVELS * 0.3)),
    "ShearY": Operation(Kind.SHEAR_Y, lambda draw: draw.sign * (draw.level / LEVELS * 0.3)),
    "TranslateXRel": Operation(
        Kind.TRANSLATE_X, lambda draw: draw.sign * (draw.level / LEVELS * 0.45) * draw.width
    ),
    "TranslateYRel": Operation(
        Kind.TRANSLATE_Y, lambda draw: draw.sign * (draw.level / LEVELS * 0.45) * draw.height
    ),
    # What is left of the colour: 0.5 at magnitude 0, none at 10.
    "Desaturate": Operation(
        Kind.COLOR, lambda draw: 1.0 - (0.5 + 0.5 * (draw.level / LEVELS)).clip(0.5, 1.0)
    ),
    "GaussianBlur": Operation(Kind.BLUR, _blur),
    "GaussianBlurRand": Operation(Kind.BLUR, _blur_random),
}
"""timm's operations by timm's names."""


def argument_at(
    name: str, level: float, sign: int, uniform: float, height: int, width: int
) -> float:
    """Return the argument of one operation in float64, as Pillow would be given it."""
    draw = Draw(np.float64(level), np.float64(sign), np.float64(uniform), height, width)
    return float(OPERATIONS[name].argument(draw))


def operation_arguments(
    names: tuple[str, ...],
    choice: Array,
    draw: Draw,
) -> Float[Array, " batch"]:
    """Return the argument of operation `names[choice]` for each image, in float32."""
    each = [OPERATIONS[name].argument(draw) for name in names]
    return jnp.stack(each)[choice, jnp.arange(choice.shape[0])]
