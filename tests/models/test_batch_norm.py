"""BatchNorm beside PyTorch's, and folded into convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from deit_jax.models.batch_norm import BatchNorm
from deit_jax.models.frozen import fold_batch_norm, freeze
from deit_jax.models.functional import abstract, initialise, split
from deit_jax.models.registry import list_models, model_builder


def torch_norm(channels, rng):
    norm = torch.nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(rng.uniform(0.5, 2.0, channels)))
        norm.bias.copy_(torch.from_numpy(rng.normal(size=channels)))
    return norm.double()


def test_training_equals_torch_over_several_steps():
    rng = np.random.default_rng(0)
    theirs = torch_norm(5, rng)
    function, params, stats = split(BatchNorm(5))
    params = {
        "scale": jnp.float32(theirs.weight.detach()),
        "bias": jnp.float32(theirs.bias.detach()),
    }

    @jax.jit
    def step(params, stats, x, target):
        def loss(params, x):
            norm = function.merge(params, stats)
            y = norm(x, train=True)
            return (y * target).sum(), (y, {"mean": norm.mean[...], "var": norm.var[...]})

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    for _ in range(5):
        x = rng.normal(3.0, 2.0, size=(4, 3, 2, 5)).astype(np.float32)
        target = rng.normal(size=x.shape).astype(np.float32)
        (_, (y, stats)), (grads, grad_x) = step(params, stats, x, target)
        tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        theirs.zero_grad()
        outputs = theirs(tensor.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        (outputs * torch.from_numpy(target).double()).sum().backward()
        # float32 against float64, where 24 numbers around 3 are summed and squared.
        close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
        close(y, outputs.detach())
        close(stats["mean"], theirs.running_mean)
        close(stats["var"], theirs.running_var)
        close(grads["scale"], theirs.weight.grad)
        close(grads["bias"], theirs.bias.grad)
        close(grad_x, tensor.grad)

    inference = function.merge(params, stats)(x, train=False)
    theirs.eval()
    with torch.no_grad():
        close(inference, theirs(tensor.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def test_variance_survives_a_large_mean_once_the_running_mean_is_near():
    norm = BatchNorm(2)
    x = np.random.default_rng(0).normal(1000.0, 1.0, size=(64, 4, 4, 2)).astype(np.float32)
    norm.mean[...] = jnp.full(2, 1000.5)
    y = norm(x, train=True)
    # A plain mean of squares would be 1e6 in steps of 0.06: nothing would be left of the variance.
    np.testing.assert_allclose(np.asarray(y).std((0, 1, 2)), 1.0, rtol=1e-3)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-4)


def test_one_value_per_channel_has_no_variance_but_no_division_by_zero_either():
    norm = BatchNorm(2)
    y = norm(jnp.ones((1, 1, 1, 2)), train=True)
    np.testing.assert_array_equal(y, 0.0)
    assert np.isfinite(norm.var[...]).all()


@pytest.fixture(scope="module")
def micro():
    """A RegNet with random parameters and statistics."""
    function, params, stats = abstract(model_builder("regnety_micro"))
    rng = np.random.default_rng(0)

    def draw(tree, low, high):
        return jax.tree.map(lambda leaf: jnp.float32(rng.uniform(low, high, leaf.shape)), tree)

    return function, draw(params, -0.5, 0.5), draw(stats, 0.5, 1.5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)


def test_folded_equals_unfolded(micro, images):
    function, params, stats = micro
    before = jax.tree.map(np.array, (params, stats))
    folded, folded_params = fold_batch_norm(function, params, stats)
    expected = jax.jit(function.head_logits)(params, stats, images)[0][0]
    (logits, distill), after = jax.jit(folded.head_logits)(folded_params, {}, images)
    assert distill is None and after == {}
    # The same numbers multiplied in another order, in float32.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not any(
        "bn" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(folded_params)
    )
    jax.tree.map(np.testing.assert_array_equal, before, (params, stats))


def test_folding_is_deterministic_and_may_be_traced(micro):
    function, params, stats = micro
    folded, folded_params = fold_batch_norm(function, params, stats)
    again, _ = fold_batch_norm(function, params, stats)
    traced = jax.jit(partial(_folded_params, function))(params, stats)
    # Equal functions are what lets jit find its compiled program again.
    assert folded == again and hash(folded) == hash(again)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, folded_params, traced)


def test_frozen_in_bfloat16_is_near_and_half_the_size(micro, images):
    function, params, stats = micro
    frozen, frozen_params = freeze("regnety_micro", params, stats, dtype=jnp.bfloat16)
    block = frozen_params["s2"]["b1"]
    assert block["conv2"]["conv"]["kernel"].dtype == jnp.bfloat16
    assert block["conv2"]["conv"]["bias"].dtype == jnp.float32
    expected = jax.jit(function.head_logits)(params, stats, images)[0][0]
    logits = jax.jit(frozen.head_logits)(frozen_params, {}, images)[0][0]
    assert logits.dtype == jnp.float32
    # Eight bits in each of some fifteen layers.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.03 * np.abs(expected).max())


def test_frozen_models_cannot_be_trained(micro, images):
    folded, folded_params = fold_batch_norm(*micro)
    with pytest.raises(ValueError, match="frozen"):
        folded.head_logits(folded_params, {}, images, train=True)


def test_models_without_batch_norm_pass_through():
    name, options = "deit_micro_distilled_patch4_16", {"num_classes": 7, "image_size": 8}
    build = model_builder(name, **options)
    params, stats = initialise(build, jax.random.key(0))
    assert stats == {}
    frozen, frozen_params = freeze(name, params, stats, **options)
    assert frozen == abstract(build)[0]
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, params, frozen_params))


@pytest.mark.parametrize(
    "name",
    [
        name if name == "regnety_micro" else pytest.param(name, marks=pytest.mark.full)
        for name in list_models("regnety*")
    ],
)
def test_every_convolution_of_the_family_folds(name):
    function, params, stats = abstract(model_builder(name))
    folded_params = jax.eval_shape(partial(_folded_params, function), params, stats)
    norms = sum(path[-1].key == "mean" for path, _ in jax.tree.leaves_with_path(stats))
    # A bias for each BatchNorm's scale and bias.
    assert len(jax.tree.leaves(folded_params)) == len(jax.tree.leaves(params)) - norms


def _folded_params(function, params, stats):
    return fold_batch_norm(function, params, stats)[1]
