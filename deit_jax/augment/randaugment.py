"""Augmentation policies, and the short names by which recipes publish them.

RandAugment: arXiv 1909.13719; AutoAugment: arXiv 1805.09501; 3-Augment: DeiT III, arXiv
2204.07118. Names, numbers and the meaning of the spec strings are timm's (1.0.31,
`data/auto_augment.py`).
"""

import math
import re
from dataclasses import dataclass

from deit_jax.augment.operations import LEVELS, OPERATIONS, Kind

Entry = tuple[str, float, float]
"""An operation, the probability that it is applied, and its magnitude."""

PLAIN = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd",
    "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY",
    "TranslateXRel", "TranslateYRel",
)  # fmt: skip
INCREASING = tuple(
    name + "Increasing" if name + "Increasing" in OPERATIONS else name for name in PLAIN
)
"""The set of "inc1": each operation grows stronger with the magnitude."""

SETS: dict[str, dict[str, float]] = {
    "3a": dict.fromkeys(("SolarizeIncreasing", "Desaturate", "GaussianBlur"), 1.0),
    "3aw": {
        "SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6, "Rotate": 3, "ShearX": 2,
        "ShearY": 2, "PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1,
        "SharpnessIncreasing": 1, "ContrastIncreasing": 1, "BrightnessIncreasing": 1,
        "Equalize": 1, "Invert": 1,
    },
    "weights": {
        "Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1,
        "ColorIncreasing": 0.25, "SharpnessIncreasing": 0.25, "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05, "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05, "Equalize": 0.05, "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
}  # fmt: skip
"""Sets of operations of the section "t..." of a RandAugment spec, with their weights."""

WEIGHTED_SETS = ("3aw", "weights")

# The sub-policies of AutoAugment: operation, probability in tenths, magnitude; twice.
_V0 = """
    Equalize 8 1 ShearY 8 4, Color 4 9 Equalize 6 3, Color 4 1 Rotate 6 8,
    Solarize 8 3 Equalize 4 7, Solarize 4 2 Solarize 6 2, Color 2 0 Equalize 8 8,
    Equalize 4 8 SolarizeAdd 8 3, ShearX 2 9 Rotate 6 8, Color 6 1 Equalize 10 2,
    Invert 4 9 Rotate 6 0, Equalize 10 9 ShearY 6 3, Color 4 7 Equalize 6 0,
    Posterize 4 6 AutoContrast 4 7, Solarize 6 8 Color 6 9, Solarize 2 4 Rotate 8 9,
    Rotate 10 7 TranslateYRel 8 9, ShearX 0 0 Solarize 8 4, ShearY 8 0 Color 6 4,
    Color 10 0 Rotate 6 2, Equalize 8 4 Equalize 0 8, Equalize 10 4 AutoContrast 6 2,
    ShearY 4 7 SolarizeAdd 6 7, Posterize 8 2 Solarize 6 10, Solarize 6 8 Equalize 6 1,
    Color 8 6 Rotate 4 5"""
_ORIGINAL = """
    PosterizeOriginal 4 8 Rotate 6 9, Solarize 6 5 AutoContrast 6 5, Equalize 8 8 Equalize 6 3,
    PosterizeOriginal 6 7 PosterizeOriginal 6 6, Equalize 4 7 Solarize 2 4,
    Equalize 4 4 Rotate 8 8, Solarize 6 3 Equalize 6 7, PosterizeOriginal 8 5 Equalize 10 2,
    Rotate 2 3 Solarize 6 8, Equalize 6 8 PosterizeOriginal 4 6, Rotate 8 8 Color 4 0,
    Rotate 4 9 Equalize 6 2, Equalize 0 7 Equalize 8 8, Invert 6 4 Equalize 10 8,
    Color 6 4 Contrast 10 8, Rotate 8 8 Color 10 2, Color 8 8 Solarize 8 7,
    Sharpness 4 7 Invert 6 8, ShearX 6 5 Equalize 10 9, Color 4 0 Equalize 6 3,
    Equalize 4 7 Solarize 2 4, Solarize 6 5 AutoContrast 6 5, Invert 6 4 Equalize 10 8,
    Color 6 4 Contrast 10 8, Equalize 8 8 Equalize 6 3"""
_AUTOAUGMENT = {
    "v0": _V0,
    "v0r": _V0.replace("Posterize ", "PosterizeIncreasing "),
    "original": _ORIGINAL,
    "originalr": _ORIGINAL.replace("PosterizeOriginal ", "PosterizeIncreasing "),
    # One of solarise at 128, grey, and blur of 0.1 to 2 pixels.
    "3a": "Solarize 10 5, Desaturate 10 10, GaussianBlurRand 10 10",
}


@dataclass(frozen=True)
class Policy:
    """A policy taken apart: what can happen in each of its layers.

    Attributes:
        layers: For each layer, the entries among which one is chosen.
        linked: The choice is made once, and every layer takes the entry of that number
            (AutoAugment). Otherwise each layer chooses for itself (RandAugment).
        weights: Relative weights of the entries, drawn without replacement; () draws them
            uniformly with replacement.
        magnitude_std: Standard deviation of the noise on the magnitude; infinity makes the
            magnitude uniform between 0 and its nominal value.
        magnitude_max: Upper bound of the magnitude.
    """

    layers: tuple[tuple[Entry, ...], ...]
    linked: bool
    weights: tuple[float, ...] = ()
    magnitude_std: float = 0.0
    magnitude_max: float = LEVELS

    @property
    def kinds(self) -> frozenset[Kind]:
        """The primitive operations that can occur."""
        names = {name for layer in self.layers for name, probability, _ in layer if probability}
        return frozenset(OPERATIONS[name].kind for name in names)


def parse_policy(spec: str) -> Policy:
    """Return the policy that a spec string names.

    Args:
        spec: "rand" or an AutoAugment policy's name, then sections joined by "-". RandAugment
            knows m (magnitude, 10), n (layers, 2), p (probability of each layer, 0.5), mstd
            (magnitude noise, 0; above 100: uniform magnitude), mmax (bound, 10), inc (0 or 1) and
            t (set of operations: 3a, 3aw or weights); AutoAugment knows mstd.

    Raises:
        ValueError: The name or a section is unknown, or a number is out of range.
    """
    name, *sections = spec.split("-")
    if name == "rand":
        return _rand_augment(spec, sections)
    if name not in _AUTOAUGMENT:
        known = ", ".join(("rand-...", *_AUTOAUGMENT))
        raise ValueError(f"Unknown augmentation policy '{name}' in '{spec}': use one of {known}.")
    values = _numbers(spec, sections, {"mstd": 0.0})
    return Policy(_sub_policies(_AUTOAUGMENT[name]), linked=True, magnitude_std=values["mstd"])


def _rand_augment(spec: str, sections: list[str]) -> Policy:
    chosen = [section[1:] for section in sections if section.startswith("t")]
    numeric = [section for section in sections if not section.startswith("t")]
    defaults = {"m": LEVELS, "n": 2, "p": 0.5, "mstd": 0.0, "mmax": 0, "inc": 0}
    values = _numbers(spec, numeric, defaults)
    if chosen and chosen[0] not in SETS:
        # timm takes any other name for the default set, which hides a typing error.
        raise ValueError(f"Unknown set 't{chosen[0]}' in '{spec}': use one of {', '.join(SETS)}.")
    names = tuple(SETS[chosen[0]]) if chosen else INCREASING if values["inc"] else PLAIN
    layers, deviation = int(values["n"]), values["mstd"]
    weighted = bool(chosen) and chosen[0] in WEIGHTED_SETS
    if layers < 1 or layers != values["n"] or (weighted and layers > len(names)):
        raise ValueError(f"'{spec}' cannot draw {values['n']:g} of {len(names)} operations.")
    return Policy(
        layers=(tuple((name, values["p"], values["m"]) for name in names),) * layers,
        linked=False,
        weights=tuple(SETS[chosen[0]].values()) if weighted else (),
        magnitude_std=math.inf if deviation > 100 else deviation,
        magnitude_max=values["mmax"] or LEVELS,
    )


def _numbers(spec: str, sections: list[str], defaults: dict[str, float]) -> dict[str, float]:
    """Read sections such as "mstd0.5" into the numbers they set."""
    values = dict(defaults)
    for section in sections:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d*)?)", section)
        if not found or found[1] not in defaults:
            raise ValueError(
                f"Unknown section '{section}' in the augmentation policy '{spec}': "
                f"use {', '.join(defaults)} followed by a number."
            )
        values[found[1]] = float(found[2])
    if not 0 <= values.get("p", 0) <= 1:
        raise ValueError(f"The probability p in '{spec}' must lie between 0 and 1.")
    return values


def _sub_policies(text: str) -> tuple[tuple[Entry, ...], ...]:
    """Turn a list of sub-policies into one tuple of entries per layer."""
    sub_policies = []
    for line in text.split(","):
        words = line.split()
        sub_policies.append(
            [
                (words[at], int(words[at + 1]) / 10, int(words[at + 2]))
                for at in range(0, len(words), 3)
            ]
        )
    return tuple(zip(*sub_policies, strict=True))
