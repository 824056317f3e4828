"""The state of a run: plain nested dicts of arrays, all that a checkpoint has to hold."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from deit_jax.models.functional import Builder, initialise
from deit_jax.training.ema import create_ema
from deit_jax.trees import Tree, overlay

TrainState = dict[str, Any]
"""Keys:

    step: Int32, steps taken, skipped ones included.
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
        "ema": create_ema(params, batch_stats) if ema else {},
        "skipped": jnp.zeros((), jnp.int32),
        "skipped_in_a_row": jnp.zeros((), jnp.int32),
        "sums": {name: jnp.zeros(()) for name in (*METRICS, "count")},
    }
