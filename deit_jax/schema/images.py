"""Keys of the data and of what happens to images."""

from dataclasses import dataclass

from deit_jax.schema.declare import FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Bounds, Options, key

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = "three numbers between 0 and 1, one for each channel"
DEVIATIONS = "three numbers, one for each channel, which must be positive"
# So many that the system would refuse them.
_THREADS = Bounds("at least 1 and at most 1024", least=1, most=1024)
_PROCESSES = Bounds("at least 0 and at most 1024", least=0, most=1024)


@dataclass(frozen=True)
class DataOptions(Options):
    """Which images are read, how they are cropped, and by whom."""

    # "prepared" (by `python -m deit_jax prepare`), "tfds" (prepared by TensorFlow Datasets),
    # "folder" (directory/split/class/image), "numbered_folder" (classes in the order of numbers,
    # as in ImageNet-V2), "digits".
    source: str = key("tfds", choices=("tfds", "folder", "numbered_folder", "prepared", "digits"))
    # folder, prepared: its root; tfds: DIR/name/version, the prepared data set itself.
    directory: str = key("", path=True)
    train_split: str = key("train")
    eval_split: str = key("validation")
    # Use only so many labelled training images, class-balanced; 0 uses all.
    train_images: int = key(0, NOT_NEGATIVE)
    # Or this share of them, class-balanced.
    fraction: float = key(1.0, SHARE)
    # Keep only so many classes, a fixed choice, in both splits; 0 keeps all.
    classes: int = key(0, NOT_NEGATIVE)
    # Damaged records that are put up with: below 1 a share of the data set, else a count.
    max_damaged: float = key(0.001, NOT_NEGATIVE)
    # "random_resized"; "simple": the whole image, moved by a few pixels (DeiT III on ImageNet-21k);
    # or "none" for images that already have the model's size.
    crop: str = key("random_resized", choices=("random_resized", "simple", "none"))
    crop_scale: tuple[float, float] = key(
        (0.08, 1.0), SHARE, words="two areas, 0 < low <= high <= 1", rising="<="
    )
    crop_ratio: tuple[float, float] = key(
        (3 / 4, 4 / 3), POSITIVE, words="two ratios, 0 < low <= high", rising="<="
    )
    interpolation: str = key("bicubic", choices=("bicubic", "bilinear", "random"))
    # Evaluation resizes to size / ratio, then crops the centre.
    eval_crop_ratio: float = key(0.875, SHARE)
    # Repeated augmentation: each drawn image enters the batch this many times (paper, 3).
    repeats: int = key(3, POSITIVE)
    # Deal the copies out to different mixing groups (mix.group), where each has a draw and partners
    # of its own; or leave them side by side. Without mixing it makes no difference.
    spread_copies: bool = key(True)
    # Reader processes (0: read in threads of this one, which is enough for up to about six cores),
    # threads in each, and finished batches that each holds ready.
    workers: int = key(0, _PROCESSES)
    threads: int = key(2, _THREADS)
    prefetch: int = key(2, POSITIVE)


@dataclass(frozen=True)
class AugmentOptions(Options):
    """What happens to each image on the device, in this order."""

    # Pixels added on every side before a random crop of the original size is taken; 0 crops
    # nothing. 4 is DeiT III's simple random crop, and CIFAR's.
    crop_padding: int = key(0, NOT_NEGATIVE)
    # What the padding holds: "constant" is black.
    crop_mode: str = key("reflect", choices=("constant", "reflect"))
    # Probability of a horizontal flip.
    flip: float = key(0.5, FRACTION)
    # A RandAugment spec, an AutoAugment policy ("original", "originalr", "v0", "v0r"), 3-Augment
    # ("3a"), or "" for none.
    policy: str = key("rand-m9-mstd0.5-inc1")
    # Of the geometric operations; "random" draws one for each.
    interpolation: str = key("bicubic", choices=("bicubic", "bilinear", "random"))
    # Strength of brightness, contrast and saturation jitter. It acts whenever it is set; the
    # reference sets 0.3 and ignores it beside RandAugment.
    color_jitter: float = key(0.0, NOT_NEGATIVE)
    # The mean is also the fill colour of geometric operations.
    mean: tuple[float, float, float] = key(IMAGENET_MEAN, FRACTION, words=CHANNELS)
    std: tuple[float, float, float] = key(IMAGENET_STD, POSITIVE, words=DEVIATIONS)
    # Rectangles are erased after normalisation: "pixel" (normal noise), "rand" (one normal colour a
    # box) or "const" (zero).
    erasing_probability: float = key(0.25, FRACTION)
    erasing_mode: str = key("pixel", choices=("const", "rand", "pixel"))
    # Largest number of boxes per image; the number is uniform from 1.
    erasing_count: int = key(1, POSITIVE)
    # Smallest and largest share of the image that is erased.
    erasing_area: tuple[float, float] = key(
        (0.02, 1 / 3), FRACTION, words="two shares of the image, 0 <= low <= high <= 1", rising="<="
    )
    # Smallest height over width of a box; the largest is its inverse.
    erasing_aspect: float = key(0.3, SHARE)

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the pixels that a geometric operation uncovers: the mean, 0 to 255."""
        red, green, blue = (min(255, round(255 * value)) for value in self.mean)
        return red, green, blue


@dataclass(frozen=True)
class MixOptions(Options):
    """What Mixup and CutMix mix, how often and with whom."""

    # Both parameters of the Beta distribution of the Mixup weight, and of the share of an image
    # that CutMix leaves; 0 switches the one off.
    mixup_alpha: float = key(0.8, NOT_NEGATIVE)
    cutmix_alpha: float = key(1.0, NOT_NEGATIVE)
    # Share of the draws that mix at all.
    probability: float = key(1.0, FRACTION)
    # Share of CutMix among the mixing draws when both are on.
    switch_probability: float = key(0.5, FRACTION)
    # One draw per group, per pair of partners, or per image.
    mode: str = key("batch", choices=("batch", "pair", "elem"))
    # Smallest and largest side of the CutMix box; when given, CutMix is on and the box no longer
    # depends on `cutmix_alpha`.
    minmax: tuple[float, float] | tuple[()] = key(
        (), FRACTION, words="two rising shares of a side", rising="<"
    )
    # Partners are taken among so many consecutive images, one draw for all of them, as the
    # reference has one for each process; independent of the number of devices. 0: the whole batch.
    group: int = key(64, NOT_NEGATIVE)
    # Borders of the CutMix box: as in today's "timm", sides of the drawn length, up to both edges;
    # or as in timm 0.3.2 ("reference"), where an odd side loses a pixel and a box of `minmax` never
    # touches the far edge. The target follows the box either way.
    box: str = key("timm", choices=("timm", "reference"))

    @property
    def cutmix(self) -> bool:
        """Whether CutMix can happen."""
        return self.cutmix_alpha > 0 or bool(self.minmax)

    @property
    def active(self) -> bool:
        """Whether anything can be mixed."""
        return (self.mixup_alpha > 0 or self.cutmix) and self.probability > 0


NORMALISED = AugmentOptions(flip=0.0, policy="", erasing_probability=0.0)
"""No augmentation: images are normalised alone."""

UNMIXED = MixOptions(mixup_alpha=0.0, cutmix_alpha=0.0, group=0)
"""Neither Mixup nor CutMix."""
