"""The transformers by name: DeiT (arXiv 2012.12877), DeiT III (arXiv 2204.07118), small ones."""

import functools
from typing import Any

from deit_jax.models.vit import VisionTransformer


def _entry(
    size: int,
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    *,
    distilled: bool = False,
    deit3: bool = False,
    **facts: Any,
) -> dict[str, Any]:
    build = functools.partial(
        VisionTransformer,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        distilled=distilled,
        deit3=deit3,
    )
    return dict(build=build, image_size=(size, size), **facts)


_deit3 = functools.partial(_entry, deit3=True)

# Accuracies: the reference implementation's READMEs and its published weights' own evaluation.
MODELS: dict[str, dict[str, Any]] = {
    "deit_tiny_patch16_224": _entry(224, 16, 192, 12, 3, parameters=5_717_416, top1=72.202),
    "deit_small_patch16_224": _entry(224, 16, 384, 12, 6, parameters=22_050_664, top1=79.854),
    "deit_base_patch16_224": _entry(224, 16, 768, 12, 12, parameters=86_567_656, top1=81.846),
    "deit_tiny_distilled_patch16_224": _entry(
        224, 16, 192, 12, 3, distilled=True, parameters=5_910_800, top1=74.476
    ),
    "deit_small_distilled_patch16_224": _entry(
        224, 16, 384, 12, 6, distilled=True, parameters=22_436_432, top1=81.164
    ),
    "deit_base_distilled_patch16_224": _entry(
        224, 16, 768, 12, 12, distilled=True, parameters=87_338_192, top1=83.372
    ),
    "deit_base_patch16_384": _entry(384, 16, 768, 12, 12, parameters=86_859_496, top1=82.890),
    "deit_base_distilled_patch16_384": _entry(
        384, 16, 768, 12, 12, distilled=True, parameters=87_630_032, top1=85.224
    ),
    # Accuracies after training on ImageNet-1k alone.
    "deit3_small_patch16_224": _deit3(224, 16, 384, 12, 6, parameters=22_059_496, top1=81.4),
    "deit3_small_patch16_384": _deit3(384, 16, 384, 12, 6, parameters=22_205_416, top1=83.4),
    "deit3_medium_patch16_224": _deit3(224, 16, 512, 12, 8, parameters=38_849_512, top1=83.0),
    "deit3_base_patch16_224": _deit3(224, 16, 768, 12, 12, parameters=86_585_320, top1=83.8),
    "deit3_base_patch16_384": _deit3(384, 16, 768, 12, 12, parameters=86_877_160, top1=85.0),
    "deit3_large_patch16_224": _deit3(224, 16, 1024, 24, 16, parameters=304_374_760, top1=84.9),
    "deit3_large_patch16_384": _deit3(384, 16, 1024, 24, 16, parameters=304_763_880, top1=85.8),
    "deit3_huge_patch14_224": _deit3(224, 14, 1280, 32, 16, parameters=632_126_440, top1=85.2),
    # For demonstrations on small images; of no paper.
    "deit3_micro_patch4_16": _deit3(16, 4, 64, 3, 2, parameters=155_338, num_classes=10),
    "deit_micro_patch2_16": _entry(16, 2, 64, 3, 2, parameters=155_786, num_classes=10),
    "deit_micro_patch4_16": _entry(16, 4, 64, 3, 2, parameters=155_018, num_classes=10),
    "deit_micro_distilled_patch2_16": _entry(
        16, 2, 64, 3, 2, distilled=True, parameters=156_564, num_classes=10
    ),
    "deit_micro_distilled_patch4_16": _entry(
        16, 4, 64, 3, 2, distilled=True, parameters=155_796, num_classes=10
    ),
}
