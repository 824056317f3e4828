"""The weight files that the authors of DeiT have published, and what they reached.

Facts of the repository's README and of runs of its evaluation (facebookresearch/deit): top-1, top-5
and loss on ImageNet's validation set, bicubic resize to int(size / 0.875), centre crop, mean of the
two heads' logits. A file name ends in the first eight hex digits of the file's SHA-256.
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
        """First eight hex digits of the SHA-256 of the file."""
        return self.file.rpartition("-")[2].partition(".")[0]


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
