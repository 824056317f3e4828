"""Resizing inside of a program, beside Pillow's on the same images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.data.images.crop import evaluation_view
from deit_jax.export.resizing import require_computable, shown_pixels
from deit_jax.preprocessing import EvalView
from tests.cli.test_predict import picture

SIZE = (48, 48)


def images():
    """Wide, tall and square; smaller, larger and as large as what is cut out, odd margins."""
    rng = np.random.default_rng(0)
    noise = [(97, 61), (31, 45), (55, 55)]
    whole = [rng.integers(0, 256, (*size, 3), np.uint8) for size in noise]
    return [*whole, np.asarray(picture(0, 201, 310))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "view",
    [
        EvalView.keeping(0.875),
        EvalView.keeping(0.875, interpolation="bilinear", arithmetic="transformers"),
        EvalView.keeping(0.9, interpolation="lanczos", fit="exact"),
    ],
    ids=["reference", "transformers", "exact"],
)
def test_pixels_are_pillows_but_for_a_level_here_and_there(view):
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 3"), jnp.uint8)
    program = jax.export.export(jax.jit(lambda x: shown_pixels(x, SIZE, view)))(symbolic)
    apart = []
    for image in images():
        (ours,) = np.asarray(program.call(image[None]))
        apart.append(np.abs(ours - evaluation_view(image, SIZE, view)))
    # Values between two levels are rounded to the other one, in one of two passes. In small
    # images and regular blocks one in a hundred lies just there, in photographs one in thousands.
    assert np.max(apart) <= 2
    assert np.mean(apart) < 0.02


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (EvalView.keeping(0.875, interpolation="nearest"), "resized by nearest"),
        (EvalView.keeping(0.875, fit="inside"), "to fit (inside)"),
        (EvalView.keeping(1.2), "filled up to 48x48"),
    ],
)
def test_what_cannot_be_put_inside(view, words):
    with pytest.raises(ValueError, match="without --preprocess") as error:
        require_computable(view, SIZE)
    assert words in str(error.value)
