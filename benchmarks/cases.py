"""What can be measured, and the configuration that both sides build it from."""

from dataclasses import dataclass

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.models.attention import AttentionForm
from deit_jax.models.registry import model_spec

MODES = ("inference", "train", "distill")
DTYPES = ("float32", "bfloat16")
AGAINST = ("torch", "torch_compile")
OURS: dict[str, AttentionForm] = {"deit_jax": "auto", "deit_jax (recompute)": "recompute"}
"""The names of deit_jax's programs, and how each computes attention."""

IMAGENET_TRAIN_IMAGES = 1_281_167


@dataclass(frozen=True)
class Case:
    """One workload.

    Attributes:
        model: a registered name.
        mode: "inference" (one forward pass), "train" (one step on labels) or "distill" (one step
            with the labels of a frozen teacher, which runs inside it).
        batch_size: images of one call.
        dtype: operands of products: "float32" or "bfloat16".
        teacher: a registered name; "" unless the mode is "distill".
        residual: type of a transformer's residual stream; a teacher's is float32.
        kernels: which of our own it uses.
    """

    model: str
    mode: str
    batch_size: int
    dtype: str
    teacher: str = ""
    residual: str = "float32"
    kernels: str = "none"

    def __str__(self) -> str:
        taught = f" by {self.teacher}" if self.teacher else ""
        stream = "" if self.residual == "float32" else f" with {self.residual} residual"
        kernels = "" if self.kernels == "none" else f", fused kernels: {self.kernels}"
        what = f"{self.model} {self.mode}{taught}, batch {self.batch_size}"
        return f"{what}, {self.dtype}{stream}{kernels}"


def check_case(case: Case, micro_batches: tuple[int, ...]) -> None:
    """Raise ValueError if the case cannot be run."""
    model_spec(case.model)
    if case.batch_size < 1:
        raise ValueError(f"A batch of {case.batch_size} images cannot be measured; use 1 or more.")
    if case.mode == "inference":
        return
    for count in micro_batches:
        if count < 1 or case.batch_size % count:
            raise ValueError(
                f"A batch of {case.batch_size} cannot be cut into {count} micro-batches; "
                "choose --micro-batches that divide every one of --batch-sizes."
            )
        if count > 1 and model_spec(case.model).batch_norm:
            raise ValueError(
                f"{case.model} has BatchNorm, whose statistics are of the whole batch; "
                "train it with --micro-batches 1."
            )
    if case.mode == "distill":
        model_spec(case.teacher)
        if model_spec(case.model).convnet:
            raise ValueError(
                f"{case.model} is a teacher; leave 'distill' out of --modes for convnets."
            )


def train_config(case: Case, micro_batches: int) -> ConfigDict:
    """Return the reference recipe for this case; both sides take their numbers from it."""
    config = default_config()
    spec = model_spec(case.model)
    config.model.name = case.model
    config.model.num_classes = spec.num_classes
    config.model.image_size = spec.image_size
    config.model.dtype = case.dtype
    config.model.residual_dtype = case.residual
    config.model.fused_kernels = case.kernels
    config.training.batch_size = case.batch_size
    config.training.micro_batches = micro_batches
    if case.mode == "distill":
        config.distillation.kind = "hard"
        config.teacher.name = case.teacher
        config.teacher.dtype = case.dtype
    return config
