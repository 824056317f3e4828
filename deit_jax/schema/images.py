"""Keys of the data and of what happens to images."""

from dataclasses import dataclass

from deit_jax.schema.declare import FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, Bounds, key

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = "three numbers between 0 and 1, one for each channel"
DEVIATIONS = "three numbers, one for each channel, which must be positive"
# So many that the system would refuse them.
_THREADS = Bounds("at least 1 and at most 1024", least=1, most=1024)
_PROCESSES = Bounds("at least 0 and at most 1024", least=0, most=1024)


@dataclass(frozen=True)
class DataOptions:
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
    # Worker processes (0: read in this process), threads in each, batches read ahead.
    workers: int = key(0, _PROCESSES)
    threads: int = key(2, _THREADS)
    prefetch: int = key(2, POSITIVE)


@dataclass(frozen=True)
class AugmentOptions:
    """Single images, on the device; deit_jax.augment.options explains every key."""

    crop_padding: int = key(0, NOT_NEGATIVE)
    crop_mode: str = key("reflect", choices=("constant", "reflect"))
    flip: float = key(0.5, FRACTION)
    policy: str = key("rand-m9-mstd0.5-inc1")
    interpolation: str = key("bicubic", choices=("bicubic", "bilinear", "random"))
    # The reference sets 0.3 and ignores it beside RandAugment.
    color_jitter: float = key(0.0, NOT_NEGATIVE)
    mean: tuple[float, float, float] = key(IMAGENET_MEAN, FRACTION, words=CHANNELS)
    std: tuple[float, float, float] = key(IMAGENET_STD, POSITIVE, words=DEVIATIONS)
    erasing_probability: float = key(0.25, FRACTION)
    erasing_mode: str = key("pixel", choices=("const", "rand", "pixel"))
    erasing_count: int = key(1, POSITIVE)
    erasing_area: tuple[float, float] = key(
        (0.02, 1 / 3), FRACTION, words="two shares of the image, 0 <= low <= high <= 1", rising="<="
    )
    erasing_aspect: float = key(0.3, SHARE)


@dataclass(frozen=True)
class MixOptions:
    """Mixup and CutMix; deit_jax.augment.mixup_cutmix explains every key."""

    # Both parameters of the Beta distributions; 0 switches the one off.
    mixup_alpha: float = key(0.8, NOT_NEGATIVE)
    cutmix_alpha: float = key(1.0, NOT_NEGATIVE)
    probability: float = key(1.0, FRACTION)
    switch_probability: float = key(0.5, FRACTION)
    mode: str = key("batch", choices=("batch", "pair", "elem"))
    minmax: tuple[float, float] | tuple[()] = key(
        (), FRACTION, words="two rising shares of a side", rising="<"
    )
    # One draw for so many consecutive images, as the reference has one for each process;
    # independent of the number of devices. 0: one for the whole batch.
    group: int = key(64, NOT_NEGATIVE)
    # Borders of the CutMix box as in today's "timm", or in timm 0.3.2 ("reference"), where an odd
    # side loses a pixel and a box of minmax never touches the far edge.
    box: str = key("timm", choices=("timm", "reference"))
