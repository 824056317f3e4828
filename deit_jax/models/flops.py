"""Operations that a model needs, by XLA's count."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deit_jax.models.functional import Builder, abstract
from deit_jax.trees import Tree


def forward_flops(build: Builder, shape: tuple[int, int, int]) -> float:
    """Floating-point operations of a forward pass, two for each multiplication with addition.

    XLA's cost analysis before its compiler rewrites the program, elementwise operations included;
    nothing is compiled or run.

    Args:
        build: see `functional.abstract`.
        shape: (batch, height, width).

    Returns:
        The count; 0.0 where XLA gives none.
    """
    function, params, stats = abstract(build)

    def forward(params: Tree, stats: Tree, images: Float[Array, "batch height width 3"]) -> Array:
        return function.head_logits(params, stats, images)[0][0]

    images = jax.ShapeDtypeStruct((*shape, 3), jnp.float32)
    cost = jax.jit(forward).lower(params, stats, images).cost_analysis()
    return float(cost.get("flops", 0.0)) if cost else 0.0
