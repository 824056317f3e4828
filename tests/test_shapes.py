"""The tests' check of shapes is on: wrong ones are refused, wherever an annotation names them."""

from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Array, Float

from deit_jax.models.attention import first_tokens
from deit_jax.models.fusion import fuse
from tests.shapes import checked

ONE = np.ones((2, 3), np.float32)


def test_functions_of_the_package_are_checked():
    assert fuse(ONE, None).shape == fuse(ONE, ONE).shape == (2, 3)
    for wrong in (ONE[:1], ONE[:, :2], ONE[0], ONE.astype(np.int32)):
        with pytest.raises(jaxtyping.TypeCheckError, match="distill_logits"):
            fuse(ONE, wrong)


def test_sizes_that_follow_from_arguments_are_checked():
    assert first_tokens(np.ones((6, 4), np.float32), 3, 2).shape == (4, 4)

    @jaxtyping.jaxtyped(typechecker=checked)
    def first(x: Float[Array, "rows width"], tokens: int) -> Float[Array, "rows//{tokens} width"]:
        return x[::2]

    first(np.ones((6, 4), np.float32), 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        first(np.ones((6, 4), np.float32), 3)


Pair = tuple[Float[Array, " n"], Float[Array, " n"] | None]


@jaxtyping.jaxtyped(typechecker=checked)
def nested(
    pair: Pair, named: dict[str, Float[Array, "n ..."]], call: Callable[[int], int], count: int
) -> None:
    pass


def test_only_arrays_are_looked_at_and_in_every_place():
    right = np.ones(3, np.float32)
    nested((right, None), {"a": right}, "no function", "no number")
    nested((right, right), {"a": ONE.T}, None, None)
    for pair, named in [((right, ONE[0, :2]), {"a": right}), ((right, right), {"a": ONE})]:
        with pytest.raises(jaxtyping.TypeCheckError):
            nested(pair, named, None, None)
