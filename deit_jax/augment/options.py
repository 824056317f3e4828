"""The settings of the augmentation of single images."""

from dataclasses import dataclass

from deit_jax.augment.randaugment import parse_policy
from deit_jax.schema import RULES
from deit_jax.schema.declare import conform
from deit_jax.schema.images import IMAGENET_MEAN, IMAGENET_STD

CROP_MODES = ("constant", "reflect")
ERASING_MODES = ("const", "rand", "pixel")
INTERPOLATIONS = ("bicubic", "bilinear", "random")


@dataclass(frozen=True)
class AugmentOptions:
    """What happens to each image, in this order. The defaults only normalise.

    Attributes:
        crop_padding: Pixels added on every side before a random crop of the original size is
            taken; 0 crops nothing. 4 is DeiT III's simple random crop, and CIFAR's.
        crop_mode: What the padding holds: "constant" (black) or "reflect".
        flip: Probability of a horizontal flip.
        policy: A RandAugment spec such as "rand-m9-mstd0.5-inc1", an AutoAugment policy
            ("original", "originalr", "v0", "v0r"), 3-Augment ("3a"), or "" for none.
        interpolation: Of the geometric operations: "bicubic", "bilinear", or "random" (either,
            drawn for each operation).
        color_jitter: Strength of brightness, contrast and saturation jitter: one number for all
            or one each. It acts whenever it is set; the reference ignores its own setting
            beside RandAugment.
        mean: Per-channel mean in the range 0 to 1, also the fill colour of geometric operations.
        std: Per-channel standard deviation in the range 0 to 1.
        erasing_probability: Probability that rectangles are erased, after normalisation.
        erasing_mode: "pixel" (normal noise), "rand" (one normal colour a box) or "const" (zero).
        erasing_count: Largest number of boxes per image; the number is uniform from 1.
        erasing_area: Smallest and largest share of the image that is erased.
        erasing_aspect: Smallest height over width of a box; the largest is its inverse.
    """

    crop_padding: int = 0
    crop_mode: str = "reflect"
    flip: float = 0.0
    policy: str = ""
    interpolation: str = "bicubic"
    color_jitter: float | tuple[float, ...] = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    erasing_probability: float = 0.0
    erasing_mode: str = "pixel"
    erasing_count: int = 1
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    erasing_aspect: float = 0.3

    def __post_init__(self) -> None:
        _one_of("crop_mode", self.crop_mode, CROP_MODES)
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("erasing_mode", self.erasing_mode, ERASING_MODES)
        for name in ("flip", "erasing_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, not {getattr(self, name)}.")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding must not be negative, not {self.crop_padding}.")
        if self.policy:
            parse_policy(self.policy)
        if self.erasing_count < 1:
            raise ValueError("erasing_count starts at 1; erasing_probability 0 erases nothing.")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std hold one number for each of the three channels.")
        if len(self.jitter) != 3 or min(self.jitter) < 0:
            raise ValueError(
                "color_jitter is one strength, or three (brightness, contrast, saturation), "
                f"none of them negative, not {self.color_jitter}."
            )
        for name in ("mean", "std", "erasing_area", "erasing_aspect"):
            conform(name, getattr(self, name), RULES[f"augment.{name}"])

    @property
    def jitter(self) -> tuple[float, ...]:
        """Strengths of brightness, contrast and saturation jitter."""
        if isinstance(self.color_jitter, tuple):
            return self.color_jitter
        return (float(self.color_jitter),) * 3

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the pixels that a geometric operation uncovers: the mean, 0 to 255."""
        red, green, blue = (min(255, round(255 * value)) for value in self.mean)
        return red, green, blue


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Unknown {name} '{value}': use one of {', '.join(allowed)}.")
