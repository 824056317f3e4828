"""The one train step: augment, ask the teacher, compare, update.

Whether there is a teacher, what the distillation is and how the batch is sharded are options of
this step; there is no second one.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, Key, Shaped

from deit_jax.augment.keys import purpose
from deit_jax.models.functional import ModelFunction
from deit_jax.schema import Config
from deit_jax.sharding import keep_rows
from deit_jax.training.distillation.labels import Kept
from deit_jax.training.ema import update_ema
from deit_jax.training.example import AnyTeacher, Batch, Example, ask, make_prepare, on_mesh
from deit_jax.training.freezing import stop_gradients, trainable
from deit_jax.training.label_losses import Losses
from deit_jax.training.learning_rate import learning_rate
from deit_jax.training.losses import training_loss
from deit_jax.training.optimizer import clip_by_global_norm
from deit_jax.training.state import METRICS, TrainState
from deit_jax.trees import Tree

TrainStep = Callable[[TrainState, Tree, Batch], TrainState]
Update = Callable[[TrainState, Example], TrainState]


def make_train_step(
    student: ModelFunction,
    teacher: AnyTeacher | None,
    optimizer: optax.GradientTransformation,
    config: Config,
    *,
    steps_per_epoch: float,
    sharding: NamedSharding | None = None,
) -> TrainStep:
    """Return `step(state, teacher_params, batch) -> state`, to be jitted by the caller.

    Args:
        student: the model that is trained.
        teacher: the frozen model, or its view of the student's images, or None; its parameters
            are the step's second argument.
        optimizer: from `make_optimizer`.
        config: the whole configuration.
        steps_per_epoch: for the schedule; need not be whole.
        sharding: how the batch is split over devices, so that augmentation and micro-batches
            move nothing between them; None on one device.
    """
    prepare = make_prepare(config, sharding)
    update = make_update(student, optimizer, config, steps_per_epoch, sharding)
    kept = Kept.of(config)

    def step(state: TrainState, teacher_params: Tree, batch: Batch) -> TrainState:
        example = prepare(batch)
        if teacher is not None:
            logits = ask(teacher, teacher_params, example.images)
            # Of all logits, and of a class, the loss takes the same with and without this.
            if kept.top:
                logits = kept.decode(kept.encode(logits))
            example = replace(example, teacher_logits=logits)
        return update(state, example)

    return on_mesh(step, sharding)


def make_update(
    student: ModelFunction,
    optimizer: optax.GradientTransformation,
    config: Config,
    steps_per_epoch: float,
    sharding: NamedSharding | None = None,
) -> Update:
    """Return the part of the step that the student takes: `update(state, example) -> state`.

    Arguments as of `make_train_step`.
    """
    differentiate = jax.value_and_grad(_loss_function(student, config), has_aux=True)

    def update(state: TrainState, example: Example) -> TrainState:
        if config.training.micro_batches == 1:
            (_, aux), grads = differentiate(state["params"], state["batch_stats"], example)
        else:
            shards = sharding.mesh.size if sharding else 1
            slices = _micro_batches(example, config.training.micro_batches, shards)
            aux, grads = _accumulate(differentiate, state, slices)
        batch_stats, losses, top1 = aux
        grads, norm = clip_by_global_norm(grads, config.optimizer.clip_norm)
        direction, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        rate = learning_rate(config, state["step"], steps_per_epoch)
        params = jax.tree.map(lambda p, d: p - rate * d, state["params"], direction)
        ema = update_ema(state["ema"], params, batch_stats, state["step"], config.ema)
        values = dict(zip(METRICS, (*losses, top1, norm), strict=True))
        updated = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state, "ema": ema}
        return _advance(state, updated, values, config.log.every_steps)

    return on_mesh(update, sharding)


def _loss_function(student: ModelFunction, config: Config) -> Callable:
    """Return the loss of one example batch, with what the step needs beside it."""

    def loss_function(
        params: Tree, batch_stats: Tree, example: Example
    ) -> tuple[Float[Array, ""], tuple[Tree, Losses, Float[Array, ""]]]:
        images, keys = example.images, example.model_keys
        if config.training.cosub:
            images, keys = _for_two_submodels(images, keys)
        images = keep_rows(images)
        heads, batch_stats = student.head_logits(
            stop_gradients(params, trainable(params, config)),
            batch_stats,
            images,
            keys=None if config.training.eval_mode else keys,
            # Statistics are parts of the network too: with a frozen one they stay.
            train=not config.training.eval_mode and config.training.parts != "heads",
        )
        losses, logits = training_loss(heads, example.teacher_logits, example.targets, config)
        hits = jnp.argmax(logits, axis=-1) == jnp.argmax(example.targets, axis=-1)
        return losses.total, (batch_stats, losses, 100 * jnp.mean(hits.astype(jnp.float32)))

    return loss_function


def _for_two_submodels(
    images: Float[Array, "batch height width 3"], keys: Key[Array, " batch"]
) -> tuple[Float[Array, "2*batch height width 3"], Key[Array, " 2*batch"]]:
    """Return every image twice in a row, with two draws of stochastic depth.

    Side by side, so that on several devices both stay where the image is.
    """
    pairs = jnp.stack([purpose(keys, "submodel 1"), purpose(keys, "submodel 2")], axis=1)
    return jnp.repeat(images, 2, axis=0), pairs.reshape(-1)


def _advance(
    state: TrainState, updated: Tree, values: dict[str, Float[Array, ""]], log_every: int
) -> TrainState:
    """Take the new values if loss and gradient are finite; keep the old ones otherwise."""
    finite = jnp.isfinite(values["loss"]) & jnp.isfinite(values["gradient_norm"])
    kept = {
        name: jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state[name])
        for name, new in updated.items()
    }
    bad: Int[Array, ""] = (~finite).astype(jnp.int32)
    # The first step after a log line starts the sums afresh.
    fresh = state["step"] % log_every == 0
    addends = {name: jnp.where(finite, value, 0.0) for name, value in values.items()}
    addends["count"] = finite.astype(jnp.float32)
    sums = {
        name: jnp.where(fresh, 0.0, state["sums"][name]) + addend
        for name, addend in addends.items()
    }
    return kept | {
        "step": state["step"] + 1,
        "skipped": state["skipped"] + bad,
        "skipped_in_a_row": jnp.where(finite, 0, state["skipped_in_a_row"] + 1),
        "sums": sums,
    }


def _micro_batches(example: Example, count: int, shards: int) -> Example:
    """Reshape [batch, ...] to [count, batch / count, ...], each device keeping its own rows."""

    def split(rows: Shaped[Array, "batch ..."]) -> Shaped[Array, "count slice ..."]:
        rest = rows.shape[1:]
        grouped = rows.reshape(shards, count, -1, *rest).swapaxes(0, 1)
        return grouped.reshape(count, -1, *rest)

    return jax.tree.map(split, example)


def _accumulate(differentiate: Callable, state: TrainState, slices: Example) -> tuple[tuple, Tree]:
    """Average gradients, losses and accuracy over equal slices, one after the other.

    The model must not have BatchNorm (the configuration check refuses it): its statistics would
    be those of a slice.
    """
    count = slices.targets.shape[0]

    Totals = tuple[Losses, Float[Array, ""], Tree]

    def one(total: Totals, example: Example) -> tuple[Totals, None]:
        (_, (_, losses, top1)), grads = differentiate(
            state["params"], state["batch_stats"], example
        )
        return jax.tree.map(lambda a, b: a + b / count, total, (losses, top1, grads)), None

    zero = jnp.zeros(())
    start = (Losses(zero, zero, zero), zero, jax.tree.map(jnp.zeros_like, state["params"]))
    (losses, top1, grads), _ = jax.lax.scan(one, start, slices)
    return (state["batch_stats"], losses, top1), grads
