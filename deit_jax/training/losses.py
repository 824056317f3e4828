"""Labels and distillation: the one place where the paper's equations 2 and 3 are written.

Paper: Touvron et al., arXiv 2012.12877, section 4. With class-head logits Z, distillation-head
logits Z_d, teacher logits Z_t, labels y (smoothed or mixed), softmax s and weight w:

    none:  CE(s(Z), y)
    soft:  (1 - w) CE(s(Z), y) + w T^2 KL(s(Z_t / T) || s(Z_d / T)) / normaliser      (eq. 2)
    hard:  (1 - w) CE(s(Z), y) + w CE(s(Z_d), argmax Z_t)                             (eq. 3)

Where the student has no distillation token, Z takes the place of Z_d: the rows "usual" and "hard,
class token only" of Table 3. The teacher's label is never smoothed (ICML version of the paper).

Normaliser of the soft term: `batch` divides the sum over images and classes by the number of
images, as eq. 2 says. The reference's code divides by images times classes
(`batch_times_classes`), which makes the term 1,000 times smaller on ImageNet.

In place of the labels' CE there may be binary cross-entropy (DeiT III, arXiv 2204.07118). Without
any teacher, two submodels can teach each other (`cosub_loss`, arXiv 2212.04884). Which heads the
loss reads, and so which are trained, is decided by `heads_read` alone.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from deit_jax.models.functional import HeadLogits
from deit_jax.models.fusion import fuse

Kind = Literal["none", "soft", "hard"]
Normaliser = Literal["batch", "batch_times_classes"]
Reading = Literal["class", "mean", "each"]
KINDS: tuple[str, ...] = get_args(Kind)
NORMALISERS: tuple[str, ...] = get_args(Normaliser)
LOSSES = ("cross_entropy", "binary_cross_entropy", "multi_hot_binary_cross_entropy")

Logits = Float[Array, "batch classes"]
Scalar = Float[Array, ""]
Criterion = Callable[[Logits, Logits], Scalar]


class Losses(NamedTuple):
    """The total, and the two unweighted terms it is made of."""

    total: Scalar
    label: Scalar
    distillation: Scalar


def heads_read(config: ConfigDict, *, distilled: bool) -> Reading:
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
    config: ConfigDict,
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
    options = config.distillation
    losses = distillation_loss(
        first,
        second,
        teacher_logits,
        targets,
        kind=options.kind,
        weight=options.weight,
        temperature=options.temperature,
        normaliser=options.normaliser,
        criterion=label_criterion(config.training),
    )
    return losses, first


def cross_entropy(logits: Logits, targets: Logits) -> Scalar:
    """Mean over the batch of -sum_c target_c log softmax(logits)_c, in float32."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.sum(targets * log_probabilities, axis=-1))


def binary_cross_entropy(logits: Logits, targets: Logits) -> Scalar:
    """Mean over images and classes of the cross-entropy of one sigmoid per class."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets))


def multi_hot(targets: Logits, smoothing: float) -> Logits:
    """Return targets in which every class that was mixed in counts in full, then smoothed.

    Classes that are there are told from the floor that smoothing gives to all: the reference asks
    for more than 0, which with smoothing every class is.
    """
    floor = smoothing / targets.shape[-1]
    # Mixing leaves the floor up to float32 rounding; a class that is there lies well above.
    return jnp.where(targets > floor + 1e-6, 1.0 - smoothing + floor, floor)


def label_criterion(options: ConfigDict) -> Criterion:
    """Return the loss of the labels that `config.training` names."""
    if options.loss == "cross_entropy":
        return cross_entropy
    if options.loss == "binary_cross_entropy":
        return binary_cross_entropy
    if options.loss == "multi_hot_binary_cross_entropy":
        smoothing = options.label_smoothing
        return lambda logits, targets: binary_cross_entropy(logits, multi_hot(targets, smoothing))
    raise ValueError(f"training.loss is {options.loss!r}; it must be one of {LOSSES}.")


def soft_distillation(
    student: Logits, teacher: Logits, *, temperature: float, normaliser: Normaliser
) -> Scalar:
    """T^2 KL(teacher || student) of the distributions softened by T (paper, eq. 2)."""
    student_log = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    teacher_log = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    divergence = jnp.sum(jnp.exp(teacher_log) * (teacher_log - student_log), axis=-1)
    classes = student.shape[-1] if normaliser == "batch_times_classes" else 1
    return temperature**2 * jnp.mean(divergence) / classes


def hard_distillation(student: Logits, teacher: Logits) -> Scalar:
    """Cross-entropy with the teacher's decision as a label, without smoothing (paper, eq. 3)."""
    labels = jax.nn.one_hot(jnp.argmax(teacher, axis=-1), teacher.shape[-1])
    return cross_entropy(student, labels)


def cosub_loss(first: Logits, second: Logits, targets: Logits, options: ConfigDict) -> Losses:
    """Labels and each other: the loss of two submodels of one network, each term with weight 1/4.

    Total: (L(Z_1, y) + L(Z_2, y) + C(Z_1, Z_2) + C(Z_2, Z_1)) / 4, where C(Z, Z') takes what Z'
    predicts for a target and is no function of Z' to differentiation. C is the cross-entropy of
    softmax distributions, or of one sigmoid for each class where L is binary.

    Source: Touvron et al., arXiv 2212.04884, section 3; the reference's engine.py, which always has
    the binary one.

    Args:
        first: logits of a submodel.
        second: of the other, on the same images.
        targets: label distribution of every image.
        options: `config.training`.
    """
    criterion = label_criterion(options)
    taught = cross_entropy if options.loss == "cross_entropy" else binary_cross_entropy
    answer = jax.nn.softmax if options.loss == "cross_entropy" else jax.nn.sigmoid
    label = (criterion(first, targets) + criterion(second, targets)) / 2
    one, other = (answer(jax.lax.stop_gradient(logits)) for logits in (first, second))
    mutual = (taught(first, other) + taught(second, one)) / 2
    return Losses((label + mutual) / 2, label, mutual)


def distillation_loss(
    class_logits: Logits,
    distillation_logits: Logits | None,
    teacher_logits: Logits | None,
    targets: Logits,
    *,
    kind: Kind = "none",
    weight: float = 0.5,
    temperature: float = 3.0,
    normaliser: Normaliser = "batch",
    criterion: Criterion = cross_entropy,
) -> Losses:
    """Return the loss of labels and teacher; without a teacher, of the labels alone.

    Args:
        class_logits: of the class head.
        distillation_logits: of the distillation head; None for a student without that token, or
            whose second head is to be left out.
        teacher_logits: of the frozen teacher on the same images; None for `kind="none"`.
        targets: label distribution of every image (smoothed, mixed).
        kind: "none", "soft" or "hard".
        weight: share of the teacher's term; the paper has 0.1 for soft, 0.5 for hard.
        temperature: of the soft term; the paper has 3.
        normaliser: of the soft term.
        criterion: loss of the labels.
    """
    label = criterion(class_logits, targets)
    second = class_logits if distillation_logits is None else distillation_logits
    if kind == "none":
        if distillation_logits is None:
            return Losses(label, label, jnp.zeros(()))
        distillation = criterion(second, targets)
        return Losses((label + distillation) / 2, label, distillation)
    if teacher_logits is None:
        raise ValueError(f"Distillation of kind {kind!r} needs the teacher's logits; got None.")
    if teacher_logits.shape != class_logits.shape:
        raise ValueError(
            f"The teacher's logits have shape {teacher_logits.shape}, the student's "
            f"{class_logits.shape}: both need the same classes."
        )
    if kind == "soft":
        distillation = soft_distillation(
            second, teacher_logits, temperature=temperature, normaliser=normaliser
        )
    else:
        distillation = hard_distillation(second, teacher_logits)
    return Losses((1 - weight) * label + weight * distillation, label, distillation)
