"""The loss of a step: which heads it reads, and what of labels and teacher it is made of.

Which heads the loss reads, and so which are trained, is decided by `heads_read` alone.
"""

from typing import Literal

from jaxtyping import Array, Float

from deit_jax.models.functional import HeadLogits
from deit_jax.models.fusion import fuse
from deit_jax.schema import Config
from deit_jax.training.cosub import cosub_loss
from deit_jax.training.distillation.losses import distillation_loss
from deit_jax.training.label_losses import Logits, Losses, label_criterion

Reading = Literal["class", "mean", "each"]


def heads_read(config: Config, *, distilled: bool) -> Reading:
    """Say how the training loss reads a student's heads; a head it does not read learns nothing.

    Args:
        config: the whole configuration.
        distilled: whether the student has a distillation head.

    Returns:
        "class": the class head alone. "mean": the mean of both heads' logits, which inference
        computes. "each": both heads, each with a term of its own.
    """
    if not distilled or config.training.cosub:
        return "class"
    if config.training.eval_mode:
        return "mean"
    options = config.distillation
    # Two class tokens (paper, section 4), whose fused output then means something. The reference
    # trains the class head alone, and yet averages both at inference.
    alone = options.kind == "none" and options.without_teacher == "class"
    return "class" if alone else "each"


def training_loss(
    heads: HeadLogits,
    teacher_logits: Logits | None,
    targets: Float[Array, "images classes"],
    config: Config,
) -> tuple[Losses, Float[Array, "images classes"]]:
    """Return the loss that the configuration asks for, and the logits that are the prediction.

    Args:
        heads: of the student; with `training.cosub` of two submodels, image by image in turn.
        teacher_logits: see `distillation_loss`.
        targets: label distribution of every image (smoothed, mixed).
        config: the whole configuration.
    """
    reading = heads_read(config, distilled=heads[1] is not None)
    first = fuse(*heads) if reading == "mean" else heads[0]
    second = heads[1] if reading == "each" else None
    if config.training.cosub:
        first, other = first[0::2], first[1::2]
        return cosub_loss(first, other, targets, config.training), first
    losses = distillation_loss(
        first,
        second,
        teacher_logits,
        targets,
        config.distillation,
        label_criterion(config.training),
    )
    return losses, first
