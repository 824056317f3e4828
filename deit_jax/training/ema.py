"""The exponential moving average (EMA) of the weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deit_jax.schema.learning import EmaOptions
from deit_jax.trees import Tree


def create_ema(params: Tree, batch_stats: Tree) -> Tree:
    """Return the average before the first step; a copy, as jit must not alias donated buffers."""
    return jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})


def update_ema(
    ema: Tree, params: Tree, batch_stats: Tree, step: Int[Array, ""], options: EmaOptions
) -> Tree:
    """Move the average towards the new values: ema = d ema + (1 - d) new.

    Written as a step towards them, which leaves what does not change as it is, to the bit.

    BatchNorm statistics are averaged like parameters, as timm's ModelEma does. With `warmup`,
    d = min(decay, (1 + step) / (10 + step)).
    """
    if not ema:
        return ema
    step = step.astype(jnp.float32)
    rate: Float[Array, ""] = jnp.asarray(options.decay, jnp.float32)
    if options.warmup:
        rate = jnp.minimum(rate, (1 + step) / (10 + step))
    new = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda average, value: average + (value - average) * (1 - rate), ema, new)
