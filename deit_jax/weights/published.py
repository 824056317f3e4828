"""The weight files that the authors of DeiT have published, and what they reached.

Facts of the repository's README and of runs of its evaluation (facebookresearch/deit): top-1, top-5
and loss on ImageNet's validation set, bicubic resize to int(size / 0.875), centre crop, mean of the
two heads' logits. A file name ends in the first eight hex digits of the file's SHA-256; those of
DeiT III (README_revenge.md there) have no hash, and are evaluated without a margin around the crop.
"""

from dataclasses import dataclass
from pathlib import Path

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
        resize: length of the shorter side before the centre crop, pixels.
        url: where it is published.
    """

    file: str
    model: str
    top1: float | None
    top5: float | None
    loss: float | None
    input_size: int
    resize: int
    url: str

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
    resize = int(input_size / 0.875)
    return PublishedFile(file, model, top1, top5, loss, input_size, resize, _BASE + file)


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
    return PublishedFile(file, model, top1, None, None, pixels, pixels, _BASE + file)


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
    for entry in PUBLISHED:
        if sha256.startswith(entry.sha256_prefix):
            return entry
    for entry in PUBLISHED:
        if Path(path).name == entry.file:
            raise ValueError(
                f"{path} is not the published file of that name: its SHA-256 begins with "
                f"{sha256[:8]} and not with {entry.sha256_prefix}, so it is damaged or another "
                f"file; download {entry.url} again, or rename the file if it is your own."
            )
    return None
