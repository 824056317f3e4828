"""The loss of the labels: cross-entropy, or binary cross-entropy (DeiT III, arXiv 2204.07118)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from deit_jax.schema.learning import TrainingOptions

Logits = Float[Array, "batch classes"]
Scalar = Float[Array, ""]
Criterion = Callable[[Logits, Logits], Scalar]


class Losses(NamedTuple):
    """The total, and the two unweighted terms it is made of."""

    total: Scalar
    label: Scalar
    distillation: Scalar


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


def label_criterion(options: TrainingOptions) -> Criterion:
    """Return the loss of the labels that `config.training` names."""
    if options.loss == "cross_entropy":
        return cross_entropy
    if options.loss == "binary_cross_entropy":
        return binary_cross_entropy
    smoothing = options.label_smoothing
    return lambda logits, targets: binary_cross_entropy(logits, multi_hot(targets, smoothing))
