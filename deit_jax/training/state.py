"""The state of a run: plain nested dicts of arrays, all that a checkpoint has to hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from deit_jax.models.functional import Builder, initialise
from deit_jax.trees import Tree, overlay

TrainState = dict[str, Any]
"""Keys:

    step: Int32, steps taken, skipped ones included; also the position in the input stream.
    params, batch_stats: of the student.
    opt_state: of the optax transformation.
    ema: {"params", "batch_stats"}, or {} where there is no moving average.
    skipped, skipped_in_a_row: Int32, steps whose loss or gradient was not finite.
    sums: running sums of the metrics since the last log line, with their "count". They live in
        the state so that a resumed run logs the same averages as one never stopped.
"""

METRICS = ("loss", "label_loss", "distillation_loss", "top1", "gradient_norm")


def create_state(
    build: Builder,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    loaded: Tree | None = None,
    *,
    ema: bool,
) -> TrainState:
    """Return the state before the first step; meant to run inside jit.

    `loaded` {"params", "batch_stats"} takes the place of as much of the initialisation.
    """
    params, batch_stats = initialise(build, key)
    if loaded:
        params = overlay(params, loaded["params"])
        batch_stats = overlay(batch_stats, loaded["batch_stats"])
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "batch_stats": batch_stats,
        "opt_state": optimizer.init(params),
        # A copy: jit must not alias two donated buffers.
        "ema": jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
        if ema
        else {},
        "skipped": jnp.zeros((), jnp.int32),
        "skipped_in_a_row": jnp.zeros((), jnp.int32),
        "sums": {name: jnp.zeros(()) for name in (*METRICS, "count")},
    }


def update_ema(
    ema: Tree, params: Tree, batch_stats: Tree, step: Int[Array, ""], *, decay: float, warmup: bool
) -> Tree:
    """Move the average towards the new values: ema = d ema + (1 - d) new.

    Written as a step towards them, which leaves what does not change as it is, to the bit.

    BatchNorm statistics are averaged like parameters, as timm's ModelEma does. With `warmup`,
    d = min(decay, (1 + step) / (10 + step)).
    """
    if not ema:
        return ema
    step = step.astype(jnp.float32)
    rate: Float[Array, ""] = jnp.asarray(decay, jnp.float32)
    if warmup:
        rate = jnp.minimum(rate, (1 + step) / (10 + step))
    new = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda average, value: average + (value - average) * (1 - rate), ema, new)
