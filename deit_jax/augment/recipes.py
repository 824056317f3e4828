"""The augmentation of each published recipe."""

from dataclasses import replace
from typing import NamedTuple

from deit_jax.schema.images import NORMALISED, UNMIXED, AugmentOptions, MixOptions


class Recipe(NamedTuple):
    """What happens to single images, then to pairs of them."""

    augment: AugmentOptions
    mix: MixOptions


_MIX = MixOptions(group=0)
_DEIT3 = replace(NORMALISED, flip=0.5, policy="3a", color_jitter=0.3)

RECIPES = {
    # DeiT, arXiv 2012.12877, Table 9.
    "deit": Recipe(AugmentOptions(), _MIX),
    # The same, Table 8, row "AutoAugment instead of RandAugment".
    "deit-autoaugment": Recipe(AugmentOptions(policy="original"), _MIX),
    # DeiT III, arXiv 2204.07118, Table 1: 3-Augment and colour jitter, no erasing.
    "deit3": Recipe(_DEIT3, _MIX),
    # The same with the simple random crop that it uses on ImageNet-21k.
    "deit3-src": Recipe(replace(_DEIT3, crop_padding=4), _MIX),
    # Crop and flip only.
    "light": Recipe(replace(NORMALISED, flip=0.5), UNMIXED),
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by name, or raise ValueError with the known names."""
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe '{name}': use one of {', '.join(RECIPES)}.")
    return RECIPES[name]
