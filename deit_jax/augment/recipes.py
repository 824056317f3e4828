"""The augmentation of each published recipe."""

from typing import NamedTuple

from deit_jax.augment.mixup_cutmix import MixOptions
from deit_jax.augment.options import AugmentOptions


class Recipe(NamedTuple):
    """What happens to single images, then to pairs of them."""

    augment: AugmentOptions
    mix: MixOptions


_DEIT_MIX = MixOptions(mixup_alpha=0.8, cutmix_alpha=1.0)
_DEIT = AugmentOptions(
    flip=0.5, policy="rand-m9-mstd0.5-inc1", erasing_probability=0.25, erasing_mode="pixel"
)
_DEIT3 = AugmentOptions(flip=0.5, policy="3a", color_jitter=0.3)

RECIPES = {
    # DeiT, arXiv 2012.12877, Table 9.
    "deit": Recipe(_DEIT, _DEIT_MIX),
    # The same, Table 8, row "AutoAugment instead of RandAugment".
    "deit-autoaugment": Recipe(
        AugmentOptions(flip=0.5, policy="original", erasing_probability=0.25), _DEIT_MIX
    ),
    # DeiT III, arXiv 2204.07118, Table 1: 3-Augment and colour jitter, no erasing.
    "deit3": Recipe(_DEIT3, _DEIT_MIX),
    # The same with the simple random crop that it uses on ImageNet-21k.
    "deit3-src": Recipe(
        AugmentOptions(flip=0.5, policy="3a", color_jitter=0.3, crop_padding=4), _DEIT_MIX
    ),
    # Crop and flip only.
    "light": Recipe(AugmentOptions(flip=0.5), MixOptions()),
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by name, or raise ValueError with the known names."""
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe '{name}': use one of {', '.join(RECIPES)}.")
    return RECIPES[name]
