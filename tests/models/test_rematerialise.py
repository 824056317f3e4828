"""Blocks that are computed again: the same losses and gradients, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.models.functional import abstract, initialise
from deit_jax.models.registry import model_builder

NAME, BATCH = "deit3_micro_patch4_16", 128


def loss_of(remat):
    """The loss of a batch, with dropout and stochastic depth; and shapes of its arguments."""
    build = model_builder(NAME, drop_rate=0.1, drop_path_rate=0.3, remat=remat)
    function, params, _ = abstract(build)

    def loss(params, images, keys):
        (logits, _), _ = function.head_logits(params, {}, images, keys=keys, train=True)
        return jnp.mean(logits**2)

    images = jax.ShapeDtypeStruct((BATCH, 16, 16, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
    return loss, (params, images, keys)


def kept_for_the_backward_pass(loss, shapes):
    """Bytes, parameters among them."""
    kept = jax.eval_shape(lambda *arguments: jax.vjp(loss, *arguments)[1], *shapes)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


@pytest.mark.slow
def test_same_gradients_in_less_memory():
    losses = {remat: loss_of(remat) for remat in (False, True)}
    kept, again = (jax.jit(jax.value_and_grad(loss)) for loss, _ in losses.values())
    build = model_builder(NAME)
    params = jax.jit(lambda key: initialise(build, key)[0])(jax.random.key(1))
    # A few, for what counts are bits and roundings; memory is that of BATCH.
    images = jax.random.normal(jax.random.key(2), (16, 16, 16, 3))
    keys = jax.random.split(jax.random.key(0), 16)
    (loss, grads), (loss_again, grads_again) = (f(params, images, keys) for f in (kept, again))
    assert loss == loss_again
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_again), strict=True):
        # The same operations, fused otherwise: roundings of sums over 16 x 17 rows.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max())
    sizes = {remat: kept_for_the_backward_pass(*losses[remat]) for remat in losses}
    # Without: some 14 times the input of a block, of three blocks. With: those inputs alone, and
    # what lies around the blocks.
    assert sizes[True] < 0.3 * sizes[False]


def test_convnets_have_no_such_option():
    with pytest.raises(ValueError, match=r"is a convnet, which takes no num_heads, .* remat"):
        model_builder("regnety_micro", remat=True)
