"""Keys of the student, its teacher, and what passes between them."""

from dataclasses import dataclass

from deit_jax.schema.declare import BELOW_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, Options, key
from deit_jax.schema.images import CHANNELS, DEVIATIONS

DTYPES = ("float32", "bfloat16")
FUSED_KERNELS = ("none", "norm", "all")


@dataclass(frozen=True)
class ModelOptions(Options):
    """The network that is trained."""

    # One of `python -m deit_jax models`.
    name: str = key("deit_small_patch16_224")
    # 0: as many as the data has; the run's config.json says how many those were.
    num_classes: int = key(1000, NOT_NEGATIVE)
    image_size: tuple[int, int] = key(
        (224, 224),
        POSITIVE,
        words="height and width in pixels, or one positive number for both",
        single=True,
    )
    # Start from these weights: whatever deit_jax.load_weights reads. "": fresh initialisation.
    weights: str = key("", path=True)
    # Attention heads of a transformer; 0: as its name says. Weights of other heads are refused.
    num_heads: int = key(0, NOT_NEGATIVE)
    drop_rate: float = key(0.0, BELOW_ONE)
    # Stochastic depth of the last block, rising linearly from 0; of DeiT III: of all blocks.
    drop_path_rate: float = key(0.1, BELOW_ONE)
    # Operands of products; parameters, softmax, normalisation and loss stay float32.
    dtype: str = key("bfloat16", choices=DTYPES)
    # Of a transformer: the stream from block to block, and what branches add to it. In bfloat16
    # accelerators move fewer bytes; each sum is rounded to 8 bits (docs/gpu.md).
    residual_dtype: str = key("float32", choices=DTYPES)
    # Of a transformer on NVIDIA GPUs, kernels of our own: "norm" for the ends of branches with the
    # normalisation behind, "all" also for products with GELU. No GPU has run them (docs/gpu.md).
    fused_kernels: str = key("none", choices=FUSED_KERNELS)


@dataclass(frozen=True)
class DistillationOptions(Options):
    """What the student learns from the teacher."""

    # "none", "soft" (Kullback-Leibler), "hard" (the teacher's label).
    kind: str = key("none", choices=("none", "soft", "hard"))
    # Share of the teacher's term: 0.1 for soft, 0.5 for hard in the paper.
    weight: float = key(0.5, FRACTION)
    temperature: float = key(3.0, POSITIVE)
    # Soft: divide the sum by "batch" (paper) or "batch_times_classes" (reference code).
    normaliser: str = key("batch", choices=("batch", "batch_times_classes"))
    # Without a teacher, a student with two heads learns the labels with "both", or with the
    # "class" head only (reference code).
    without_teacher: str = key("both", choices=("both", "class"))


@dataclass(frozen=True)
class TeacherOptions(Options):
    """The network that teaches, frozen."""

    # Weights say themselves what they are of; another name than this default must be theirs.
    name: str = key("regnety_160")
    # A run directory of train.py, a file of weights, or a cached Hugging Face repository.
    weights: str = key("", path=True)
    # Of a run directory: "best", "latest" or a step.
    checkpoint: str = key("best", pattern="best|latest|[0-9]{1,9}", words="best, latest or a step")
    ema: bool = key(False)
    dtype: str = key("bfloat16", choices=DTYPES)
    # Normalisation it was trained with; (): what its run or its config.json says, else ImageNet's.
    # Where it is not the student's, the same pixels are normalised again.
    mean: tuple[float, float, float] | tuple[()] = key((), FRACTION, words=CHANNELS)
    std: tuple[float, float, float] | tuple[()] = key((), POSITIVE, words=DEVIATIONS)
    # Images are resized to it on the device; (0, 0): the student's size for a convnet, that of its
    # weights for a transformer.
    image_size: tuple[int, int] = key(
        (0, 0),
        NOT_NEGATIVE,
        words="height and width in pixels, one number for both, or (0, 0) where it follows",
        single=True,
    )
    # File with the teacher's class index for each class of the student; "": the same classes.
    classes: str = key("", path=True)
    # Keep its answers in this directory, and read those that are there instead of asking: the same
    # bits, for a fraction of the time (docs/labels.md). "": ask at every step.
    labels: str = key("", path=True)
    # Soft: the loss sees only so many of its largest logits, and the others' sum; 0: all logits.
    labels_top: int = key(0, NOT_NEGATIVE)
