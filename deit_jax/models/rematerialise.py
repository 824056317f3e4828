"""Blocks that are computed a second time in the backward pass, instead of kept until then."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Key


def rematerialised(block: nnx.Module) -> Callable[..., Float[Array, "rows_out width"]]:
    """Return a transformer's block of which nothing but its input is kept for the backward pass.

    Args:
        block: as `models.block.Block`.

    Returns:
        The same function of (x, tokens, queries, *, keys), to the bit; its gradient computes the
        block again. Weights of which each device holds a part are gathered again then, too.
    """
    structure, params = nnx.split(block)

    def call(
        x: Float[Array, "rows width"],
        tokens: int,
        queries: int,
        *,
        keys: Key[Array, " batch"] | None = None,
    ) -> Array:
        def run(params: Any, x: Array, keys: Array | None) -> Array:
            module: Any = nnx.merge(structure, params)
            return module(x, tokens, queries, keys=keys)

        return jax.checkpoint(run)(params, x, keys)

    return call
