"""The learning rate at every step: warm-up, decay and noise, on optax's schedules in epochs.

Formulas are those of timm 0.3.2, which the reference pins. Warm-up takes the place of the first
epochs of the decay; it does not shift it.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from deit_jax.schema import Config
from deit_jax.schema.learning import ScheduleOptions
from deit_jax.seeds import seed_key


def peak_learning_rate(config: Config) -> float:
    """Learning rate after warm-up: times batch / 512 (paper, Table 9), unless taken as it is."""
    per_images = config.optimizer.per_images
    scale = config.training.batch_size / per_images if per_images else 1.0
    return config.optimizer.learning_rate * scale


def steps_of_epoch(config: Config, images: int) -> float:
    """Return the steps of one epoch; need not be whole.

    An epoch is one pass over the training images, or more where the schedule would otherwise have
    fewer than `schedule.least_steps`.

    Args:
        config: the whole configuration.
        images: of the training set.
    """
    once, schedule = images / config.training.batch_size, config.schedule
    return max(once, schedule.least_steps / (schedule.epochs + schedule.cooldown_epochs))


def total_steps(config: Config, steps_per_epoch: float) -> int:
    """Return the steps of the whole run: those of the schedule and those at its last rate."""
    epochs = config.schedule.epochs + config.schedule.cooldown_epochs
    return max(1, round(epochs * steps_per_epoch))


def learning_rate(
    config: Config, step: Int[Array, ""] | int, steps_per_epoch: float
) -> Float[Array, ""]:
    """Learning rate of one step.

    With `schedule.per_epoch` it is constant over an epoch and one epoch late: the reference sets
    it after epoch e to the value of e, so that epochs 0 and 1 both have the first value.

    Args:
        config: the whole configuration.
        step: steps taken before this one.
        steps_per_epoch: need not be whole.
    """
    schedule, peak = config.schedule, peak_learning_rate(config)
    epoch = jnp.asarray(step, jnp.float32) / steps_per_epoch
    if schedule.per_epoch:
        # The epoch of the middle of the batch: no rounding can move it over a boundary.
        epoch = jnp.floor((jnp.asarray(step, jnp.float32) + 0.5) / steps_per_epoch)
        epoch = jnp.maximum(epoch - 1.0, 0.0)
    rate = _decay(schedule, peak)(epoch)
    if schedule.warmup_epochs:
        start = schedule.warmup_learning_rate
        # Not optax's line, which rounds its start to the precision of its end.
        warmup = start + (peak - start) * epoch / schedule.warmup_epochs
        rate = jnp.where(epoch < schedule.warmup_epochs, warmup, rate)
    if schedule.noise_range:
        rate = rate * (1.0 + _noise(config, epoch))
    return jnp.asarray(rate, jnp.float32)


def _decay(schedule: ScheduleOptions, peak: float) -> optax.Schedule:
    """Return the part after warm-up, as a function of the epoch; past the end it stays put."""
    if schedule.name == "cosine":
        alpha = schedule.final_learning_rate / peak
        return optax.cosine_decay_schedule(peak, schedule.epochs, alpha)
    if schedule.name == "linear":
        return optax.linear_schedule(peak, schedule.final_learning_rate, schedule.epochs)
    if schedule.name == "step":
        # Later epochs are at the rate of the last one, no step further.
        steps = math.ceil(schedule.epochs / schedule.decay_epochs) - 1
        last = peak * schedule.decay_rate**steps if schedule.cooldown_epochs else None
        return optax.exponential_decay(
            peak, schedule.decay_epochs, schedule.decay_rate, staircase=True, end_value=last
        )
    return optax.constant_schedule(peak)


def _noise(config: Config, epoch: Float[Array, ""]) -> Float[Array, ""]:
    """Relative noise of an epoch: normal, drawn again while beyond the limit (timm).

    `schedule.noise_range` holds the first epoch with noise and the one after the last, as shares
    of all epochs.
    """
    schedule = config.schedule
    whole = jnp.floor(epoch)
    first, end = (share * schedule.epochs for share in schedule.noise_range)
    key = jax.random.fold_in(seed_key(config.seed), whole.astype(jnp.int32))
    limit = schedule.noise_limit / schedule.noise_std
    noise = schedule.noise_std * jax.random.truncated_normal(key, -limit, limit)
    return jnp.where((first <= whole) & (whole < end), noise, 0.0)
