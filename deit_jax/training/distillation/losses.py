"""Distillation: the one place where the paper's equations 2 and 3 are written.

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

In place of the labels' CE there may be binary cross-entropy (`label_losses`).
"""

import jax
import jax.numpy as jnp

from deit_jax.schema.networks import DistillationOptions
from deit_jax.training.label_losses import Criterion, Logits, Losses, Scalar, cross_entropy


def soft_distillation(
    student: Logits, teacher: Logits, *, temperature: float, normaliser: str
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


def distillation_loss(
    class_logits: Logits,
    distillation_logits: Logits | None,
    teacher_logits: Logits | None,
    targets: Logits,
    options: DistillationOptions,
    criterion: Criterion = cross_entropy,
) -> Losses:
    """Return the loss of labels and teacher; without a teacher, of the labels alone.

    Args:
        class_logits: of the class head.
        distillation_logits: of the distillation head; None for a student without that token, or
            whose second head is to be left out.
        teacher_logits: of the frozen teacher on the same images; None without one.
        targets: label distribution of every image (smoothed, mixed).
        options: kind, weight and temperature of the distillation.
        criterion: loss of the labels.
    """
    label = criterion(class_logits, targets)
    second = class_logits if distillation_logits is None else distillation_logits
    if options.kind == "none":
        if distillation_logits is None:
            return Losses(label, label, jnp.zeros(()))
        distillation = criterion(second, targets)
        return Losses((label + distillation) / 2, label, distillation)
    if teacher_logits is None:
        raise ValueError(
            f"Distillation of kind {options.kind!r} needs the teacher's logits; got None."
        )
    if teacher_logits.shape != class_logits.shape:
        raise ValueError(
            f"The teacher's logits have shape {teacher_logits.shape}, the student's "
            f"{class_logits.shape}: both need the same classes."
        )
    if options.kind == "soft":
        distillation = soft_distillation(
            second,
            teacher_logits,
            temperature=options.temperature,
            normaliser=options.normaliser,
        )
    else:
        distillation = hard_distillation(second, teacher_logits)
    total = (1 - options.weight) * label + options.weight * distillation
    return Losses(total, label, distillation)
