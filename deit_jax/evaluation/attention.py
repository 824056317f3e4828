"""What a vision transformer's prefix tokens look at, and how alike they are, layer by layer.

The prefix tokens are the class token and, of a distilled model, the distillation token after it.
"""

from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deit_jax.models.functional import Classifier
from deit_jax.models.vit import VisionTransformer

Maps = Float[Array, "depth batch heads tokens tokens"]


class Looks(NamedTuple):
    """What the prefix tokens do with each image of a batch.

    Attributes:
        heads: attention weights: in every block, for each image and head, the share of a prefix
            token's attention (fourth axis) that goes to each token; they sum to 1.
        rollout: the same from the input up to and including each block; see `rollout`.
        cosines: between both prefix tokens, see `token_cosines`; empty with one.
    """

    heads: Float[Array, "depth batch heads prefix tokens"]
    rollout: Float[Array, "depth batch prefix tokens"]
    cosines: Float[Array, "layers batch"]


def look(model: Classifier, images: Float[Array, "batch height width 3"]) -> Looks:
    """Run a vision transformer on normalised images; may be called inside jit.

    Raises:
        ValueError: the model is a convnet, which has no attention.
    """
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"{type(model).__name__} is a convnet, which has no attention to look at; give the "
            "weights of a vision transformer."
        )
    maps, prefix = model.attention_maps(images), model.num_prefix_tokens
    cosines = token_cosines(model, images) if prefix > 1 else jnp.zeros((0, len(images)))
    return Looks(maps[..., :prefix, :], rollout(maps)[..., :prefix, :], cosines)


def rollout(maps: Maps) -> Float[Array, "depth batch tokens tokens"]:
    """Return how much of each token's content after each block comes from each input token.

    Heads are averaged, and a block's input counts half, for the residual branch: the product over
    the blocks of (attention + identity) / 2 (Abnar and Zuidema, arXiv 2005.00928, section 3).

    Args:
        maps: attention weights, from `VisionTransformer.attention_maps`.
    """
    steps = (maps.mean(2) + jnp.eye(maps.shape[-1])) / 2
    so_far, rolled = steps[0], [steps[0]]
    for step in steps[1:]:
        so_far = step @ so_far
        rolled.append(so_far)
    return jnp.stack(rolled)


def cosine_layers(depth: int) -> list[str]:
    """Name the places where `token_cosines` compares, in order."""
    return ["learned", "input", *(f"block {number}" for number in range(depth)), "final norm"]


def token_cosines(
    model: Classifier, images: Float[Array, "batch height width 3"]
) -> Float[Array, "layers batch"]:
    """Return the cosine between class and distillation token at the places of `cosine_layers`.

    These are: the learned tokens themselves (alike for all images), with their position embeddings,
    after every block, and what the heads read. The paper has 0.06 for the learned tokens and 0.93
    for the last layer (arXiv 2012.12877, section 4).

    Raises:
        ValueError: the model has no distillation token.
    """
    if not (isinstance(model, VisionTransformer) and model.has_distillation_head):
        raise ValueError("The model has no distillation token to compare the class token with.")
    seen = model.activations(images)
    names = ["tokens", *(f"blocks.{number}" for number in range(model.depth)), "norm"]
    learned = _cosine(model.cls_token[...][0, 0], model.dist_token[...][0, 0])
    along = [_cosine(seen[name][:, 0], seen[name][:, 1]) for name in names]
    return jnp.stack([jnp.full(len(images), learned), *along])


def _cosine(one: Float[Array, "*batch width"], other: Float[Array, "*batch width"]) -> Array:
    lengths = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / lengths


def on_patches(
    shares: Float[np.ndarray, "*axes tokens"], grid: tuple[int, int]
) -> Float[np.ndarray, "*axes rows columns"]:
    """Leave the prefix tokens out and lay the rest out as the patches lie in the image.

    Args:
        shares: something for each token.
        grid: patches along (height, width).
    """
    rows, columns = grid
    patches = shares[..., shares.shape[-1] - rows * columns :]
    return cast(np.ndarray, patches.reshape(*shares.shape[:-1], rows, columns))
