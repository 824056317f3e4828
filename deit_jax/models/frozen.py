"""Models that are only run, such as a teacher: BatchNorm is folded, nothing is left to update."""

from typing import Any, cast

import jax.numpy as jnp
from flax import nnx

from deit_jax.models.batch_norm import ConvNorm
from deit_jax.models.functional import ModelFunction, abstract, split
from deit_jax.models.registry import model_builder
from deit_jax.trees import Tree


def freeze(
    name: str,
    params: Tree,
    batch_stats: Tree,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    dtype: Any = jnp.float32,
    **options: Any,
) -> tuple[ModelFunction, Tree]:
    """Turn the weights of a trained model into one that can only be run.

    Args:
        name: one of `list_models()`.
        params: its parameters.
        batch_stats: its BatchNorm statistics; empty for models without BatchNorm, whose parameters
            are returned as they are.
        num_classes: classes of each head; the model's own default if None.
        image_size: (height, width) or one number for both, in pixels; default if None.
        dtype: type of the operands of products and convolutions.
        **options: more of those of `model_builder`.

    Returns:
        Function and parameters, to be called as `function.head_logits(params, {}, images)`.
    """
    build = model_builder(
        name, num_classes=num_classes, image_size=image_size, dtype=dtype, **options
    )
    return fold_batch_norm(abstract(build)[0], params, batch_stats)


def fold_batch_norm(
    function: ModelFunction, params: Tree, batch_stats: Tree
) -> tuple[ModelFunction, Tree]:
    """Fold every BatchNorm into the convolution before it; see `ConvNorm.fold`.

    The folded network equals the unfolded one at inference up to float32 rounding, and has no
    statistics. May be called inside jit; the trees passed in are left as they are.
    """
    model = cast(nnx.Module, function.merge(params, batch_stats))
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ConvNorm):
            module.fold()
    folded, params, _ = split(model)
    return folded, params
