"""The transformers by name: DeiT (arXiv 2012.12877), DeiT III (arXiv 2204.07118), small ones."""

import functools
from typing import Any

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.spec import ModelSpec
from deit_jax.models.vit import VisionTransformer


def _spec(
    name: str,
    size: int,
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    parameters: int,
    top1: float = 0.0,
    *,
    distilled: bool = False,
    deit3: bool = False,
    **facts: Any,
) -> ModelSpec:
    return ModelSpec(
        name,
        VisionTransformer,
        VitArchitecture(patch_size, width, depth, num_heads, distilled, deit3),
        image_size=(size, size),
        parameters=parameters,
        top1=top1,
        **facts,
    )


_distilled = functools.partial(_spec, distilled=True)
_deit3 = functools.partial(_spec, deit3=True)
_micro = functools.partial(_spec, num_classes=10, in_timm=False)

# Name, pixels, then patch, width, blocks and heads, parameters, accuracy. Accuracies: the reference
# implementation's READMEs and its published weights' own evaluation.
MODELS = (
    _spec("deit_tiny_patch16_224", 224, 16, 192, 12, 3, 5_717_416, 72.202),
    _spec("deit_small_patch16_224", 224, 16, 384, 12, 6, 22_050_664, 79.854),
    _spec("deit_base_patch16_224", 224, 16, 768, 12, 12, 86_567_656, 81.846),
    _distilled("deit_tiny_distilled_patch16_224", 224, 16, 192, 12, 3, 5_910_800, 74.476),
    _distilled("deit_small_distilled_patch16_224", 224, 16, 384, 12, 6, 22_436_432, 81.164),
    _distilled("deit_base_distilled_patch16_224", 224, 16, 768, 12, 12, 87_338_192, 83.372),
    _spec("deit_base_patch16_384", 384, 16, 768, 12, 12, 86_859_496, 82.890),
    _distilled("deit_base_distilled_patch16_384", 384, 16, 768, 12, 12, 87_630_032, 85.224),
    # Accuracies after training on ImageNet-1k alone.
    _deit3("deit3_small_patch16_224", 224, 16, 384, 12, 6, 22_059_496, 81.4),
    _deit3("deit3_small_patch16_384", 384, 16, 384, 12, 6, 22_205_416, 83.4),
    _deit3("deit3_medium_patch16_224", 224, 16, 512, 12, 8, 38_849_512, 83.0),
    _deit3("deit3_base_patch16_224", 224, 16, 768, 12, 12, 86_585_320, 83.8),
    _deit3("deit3_base_patch16_384", 384, 16, 768, 12, 12, 86_877_160, 85.0),
    _deit3("deit3_large_patch16_224", 224, 16, 1024, 24, 16, 304_374_760, 84.9),
    _deit3("deit3_large_patch16_384", 384, 16, 1024, 24, 16, 304_763_880, 85.8),
    _deit3("deit3_huge_patch14_224", 224, 14, 1280, 32, 16, 632_126_440, 85.2),
    # For demonstrations on small images; of no paper.
    _micro("deit3_micro_patch4_16", 16, 4, 64, 3, 2, 155_338, deit3=True),
    _micro("deit_micro_patch2_16", 16, 2, 64, 3, 2, 155_786),
    _micro("deit_micro_patch4_16", 16, 4, 64, 3, 2, 155_018),
    _micro("deit_micro_distilled_patch2_16", 16, 2, 64, 3, 2, 156_564, distilled=True),
    _micro("deit_micro_distilled_patch4_16", 16, 4, 64, 3, 2, 155_796, distilled=True),
)
