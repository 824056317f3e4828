"""Floating-point operations that a workload needs, for the share of the peak it reaches (MFU).

The model's operations, not the program's: a training step counts three forward passes (forward,
and the gradients of activations and weights), whatever is recomputed, left out or added.
"""

import jax.numpy as jnp

from benchmarks.cases import Case
from deit_jax.models.flops import forward_flops
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.trees import Tree

FORWARD_PASSES = {"inference": 1, "train": 3, "distill": 3}


def model_flops(case: Case) -> tuple[float, str]:
    """Return the operations of one call and how they were counted.

    Vision transformers are counted analytically, products only and all tokens of all blocks. Other
    models, a convnet teacher among them, have XLA's count of their forward pass.
    """
    student, source = _forward_flops(case.model, case)
    total = FORWARD_PASSES[case.mode] * student
    if case.mode == "distill":
        teacher, teacher_source = _forward_flops(case.teacher, case)
        total += teacher
        source = source if source == teacher_source else f"{source}, teacher {teacher_source}"
    return total, source


def _forward_flops(name: str, case: Case) -> tuple[float, str]:
    """Of a network of the case; a teacher is shown the student's images."""
    size = model_spec(case.model).image_size
    build = model_builder(name, image_size=size, dtype=jnp.dtype(case.dtype))
    params = abstract(build)[1]
    if "patch_embed" in params:
        return case.batch_size * vit_forward_flops(params, size), "analytic"
    # It counts elementwise operations too, and is 0.0 where XLA gives no figure.
    return forward_flops(build, (case.batch_size, *size)), "XLA"


def vit_forward_flops(params: Tree, image_size: tuple[int, int]) -> float:
    """Operations (two for each multiplication and addition) of one image's forward pass.

    Args:
        params: a vision transformer's parameters or their shapes.
        image_size: (height, width) in pixels.
    """
    patch_height, patch_width, channels, width = params["patch_embed"]["proj"]["kernel"].shape
    patches = (image_size[0] // patch_height) * (image_size[1] // patch_width)
    # Not the length of `pos_embed`: in DeiT III the class token has no position.
    tokens = patches + sum(name in params for name in ("cls_token", "dist_token"))
    embedding = patches * patch_height * patch_width * channels * width
    blocks = 0
    for block in params["blocks"].values():
        weights = (block["attn"]["qkv"], block["attn"]["proj"], *block["mlp"].values())
        blocks += tokens * sum(weight["kernel"].size for weight in weights)
        # Scores, and the weighted sum of the values.
        blocks += 2 * tokens * tokens * width
    heads = sum(params[name]["kernel"].size for name in ("head", "head_dist") if name in params)
    return 2.0 * (embedding + blocks + heads)
