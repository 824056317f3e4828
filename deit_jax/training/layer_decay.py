"""Layer-wise learning rates: the nearer to the input, the slower (BEiT, arXiv 2106.08254)."""

import jax
import optax
from jaxtyping import Array, Float

from deit_jax.trees import Tree

_STEM = ("cls_token", "dist_token", "pos_embed", "patch_embed")


def layer_scales(params: Tree, decay: float) -> Tree:
    """Return each parameter's factor: decay to the power of its distance from the heads.

    Heads have 1; the last block and the final normalisation decay; embeddings the smallest. Source
    of the grouping: timm, `param_groups_layer_decay` with the transformer's `group_matcher`.

    Raises:
        ValueError: the model is no transformer, so it has no such layers.
    """
    if "patch_embed" not in params:
        raise ValueError(
            f"optimizer.layer_decay is {decay} but only transformers have the layers for it; "
            "set it to 1.0."
        )
    depth = len(params["blocks"])

    def scale(path: tuple, leaf: Float[Array, "..."]) -> float:
        name = path[0].key
        if name in _STEM:
            layer = 0
        elif name == "blocks":
            layer = int(path[1].key) + 1
        else:
            layer = depth if name == "norm" else depth + 1
        return decay ** (depth + 1 - layer)

    return jax.tree_util.tree_map_with_path(scale, params)


def scale_by_layer(params: Tree, decay: float) -> optax.GradientTransformation:
    """Return the transformation that multiplies every update by its layer's factor."""
    scales = layer_scales(params, decay)
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, s: u * s, updates, scales))
