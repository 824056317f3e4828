"""Small states of training, saved and compared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deit_jax.runs.checkpoints.manager import Checkpoints

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.masked(optax.adamw(optax.cosine_decay_schedule(1e-3, 10)), {"0": True, "head": False}),
)


def make_state(step, *, ema=True, width=6):
    """A small state with every kind of node that a real one has, different at each step."""
    keys = iter(jax.random.split(jax.random.key(step), 8))
    params = {
        "0": {"kernel": jax.random.normal(next(keys), (16, width)), "bias": jnp.zeros(width)},
        "head": jax.random.normal(next(keys), (3, 3)).astype(jnp.bfloat16),
    }
    stats = {"norm": {"mean": jax.random.normal(next(keys), (5,))}}
    average = {"params": jax.tree.map(lambda x: x * 2, params), "batch_stats": stats}
    return {
        "step": jnp.int32(step),
        "params": params,
        "batch_stats": stats,
        "opt_state": OPTIMIZER.init(params),
        "ema": jax.tree.map(jnp.copy, average) if ema else {},
        "sums": {"loss": jnp.float32(step) / 3},
        "key": jax.random.key(step),
    }


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


# Traced, not computed: all test processes import this.
ABSTRACT = jax.tree.map(
    lambda x: x.update(sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])),
    jax.eval_shape(lambda: make_state(0)),
)


def assert_same(found, expected):
    """Same structure, types and bits; NaN equals itself."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == b.dtype, path
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def make_small(step):
    """One array, where no more than the step matters: saved in a quarter of the time."""
    return {"params": {"w": jnp.full(3, step, jnp.float32)}}


def save_all(directory, scores, make=make_state, **options):
    """Save steps 1, 2, ... with these deciding metrics; None for steps that were not evaluated."""
    with Checkpoints(directory, **options) as checkpoints:
        for step, score in enumerate(scores, start=1):
            metrics = None if score is None else {"top1": score, "loss": 1.0}
            assert checkpoints.save(step, make(step), meta={"at": step}, metrics=metrics)
