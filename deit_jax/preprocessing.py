"""How inference shows a network its images: it belongs to weights as much as their values do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, Literal

from deit_jax.schema.images import IMAGENET_MEAN, IMAGENET_STD

# The normalisation and evaluation crop that the reference trains and evaluates with.
MEAN: Final = IMAGENET_MEAN
STD: Final = IMAGENET_STD
CROP_RATIO: Final = 0.875

INTERPOLATIONS: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's, in the order of its numbers, which transformers stores."""

Fit = Literal["cover", "exact", "inside", "none"]
Arithmetic = Literal["torchvision", "timm", "transformers"]
Ratio = float | Fraction
Size = tuple[int, int]


@dataclass(frozen=True)
class EvalView:
    """From an image to the network's size: resized, then the centre cut out.

    Attributes:
        crop_ratio: along (height, width), the share of the resized side that is kept: it is
            int(side / ratio). A fraction where pixels are stated, such as 224 of 256.
        fit: "cover" keeps the proportions and resizes to the smallest image that covers the
            resized sides; "inside" to the largest within them; "exact" gives proportions up;
            "none" does not resize. What is then missing is filled.
        interpolation: one of `INTERPOLATIONS`.
        arithmetic: whose rounding: "torchvision" cuts the longer side off to whole pixels and
            rounds half margins to even; "timm" rounds the longer side of sizes that are no square;
            "transformers" cuts margins off too.
        fill: RGB levels of what is missing.
    """

    crop_ratio: tuple[Ratio, Ratio] = (CROP_RATIO, CROP_RATIO)
    fit: Fit = "cover"
    interpolation: str = "bicubic"
    arithmetic: Arithmetic = "torchvision"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if not all(ratio > 0 for ratio in self.crop_ratio):
            raise ValueError(f"crop_ratio {self.crop_ratio} must be positive.")

    @classmethod
    def keeping(cls, ratio: Ratio, **others: Any) -> "EvalView":
        """Return a view that keeps one share of both sides."""
        return cls((ratio, ratio), **others)

    def sides(self, size: Size) -> Size:
        """Return (height, width) that `size` is cut out of, before proportions are looked at."""
        tall, wide = (int(side / ratio) for side, ratio in zip(size, self.crop_ratio, strict=True))
        return max(1, tall), max(1, wide)

    def resized(self, image: Size, size: Size) -> Size:
        """Return (height, width) that an image is resized to before `size` is cut out of it."""
        if self.fit == "none":
            return image
        tall, wide = self.sides(size)
        if self.fit == "exact":
            return tall, wide
        height, width = image
        if self.fit == "inside" or (self.arithmetic == "timm" and size[0] != size[1]):
            # timm/data/transforms.py, ResizeKeepRatio.
            choose = max if self.fit == "inside" else min
            factor = choose(height / tall, width / wide)
            return max(1, round(height / factor)), max(1, round(width / factor))
        if width * tall <= height * wide:
            return int(wide * height / width), wide
        return tall, int(tall * width / height)

    def margin(self, resized: int, side: int) -> int:
        """Return how many pixels are cut off before the centre, along one side."""
        if self.arithmetic == "transformers":
            return (resized - side) // 2
        # Python rounds halves to even, as torchvision's CenterCrop does.
        return round((resized - side) / 2)


@dataclass(frozen=True)
class Preprocessing:
    """How weights want their images.

    Attributes:
        view: resizing and cropping.
        mean, std: of the normalisation, for pixels in [0, 1].
        assumed: what nothing said, so that it is the reference's: "normalisation", "crop".
        refused: why it cannot be done here, a sentence; "" if it can.
        remark: what else is to be said of it, a sentence.
    """

    view: EvalView = field(default_factory=EvalView)
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    assumed: tuple[str, ...] = ("normalisation", "crop")
    refused: str = ""
    remark: str = ""

    def require(self) -> "Preprocessing":
        """Return it if it can be done.

        Raises:
            ValueError: it cannot.
        """
        if self.refused:
            raise ValueError(self.refused)
        return self

    def keeping(self, ratio: float | None) -> "Preprocessing":
        """Return the same with another share of the resized sides, unless that is None or 0."""
        if not ratio:
            return self
        return replace(self, view=replace(self.view, crop_ratio=(ratio, ratio)))

    @property
    def note(self) -> str:
        """What was assumed, is odd or cannot be done, in sentences; "" if nothing."""
        if self.refused:
            return self.refused
        sentences = {
            "normalisation": f"normalised with mean {in_four_digits(self.mean)} and standard "
            f"deviation {in_four_digits(self.std)}",
            "crop": f"resized ({self.view.interpolation}) and cropped to the middle "
            f"{float(self.view.crop_ratio[0]):.4g}",
        }
        missing = " and ".join(sentences[part] for part in self.assumed)
        assumed = f"Nothing says how its images are prepared; assumed: {missing}."
        return " ".join(filter(None, [self.remark, assumed if missing else ""]))

    def to_json(self) -> dict[str, Any]:
        """Return what programs may want to know."""
        content = asdict(self.view) | {"mean": self.mean, "std": self.std, "assumed": self.assumed}
        content["note"] = self.note
        return content | {"crop_ratio": [float(ratio) for ratio in self.view.crop_ratio]}


ASSUMED: Final = Preprocessing()
"""What the reference does, where nothing says anything."""


def in_four_digits(values: Iterable[float]) -> str:
    """Write means or deviations beside each other."""
    return ", ".join(f"{value:.4g}" for value in values)
