"""Layers and their hand-written gradients beside PyTorch in float64; statistics of dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from deit_jax.models import layer_norm as layer_norm_module
from deit_jax.models import products
from deit_jax.models.block import Block, Mlp
from deit_jax.models.layer_norm import LayerNorm, layer_norm
from deit_jax.models.layers import (
    Linear,
    PatchEmbed,
    dropout,
    fold_keys,
    gelu,
    stochastic_depth,
)
from deit_jax.models.products import dense, dense_apart, product

RNG = np.random.default_rng(0)


def draw(*shape, scale=1.0):
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def gradients(function, arguments, grad):
    out, pull_back = jax.vjp(function, *arguments)
    return out, pull_back(jnp.asarray(grad, out.dtype))


def torch_gradients(function, arguments, grad):
    leaves = [torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in arguments]
    out = function(*leaves)
    out.backward(torch.tensor(np.asarray(grad, np.float64)))
    return out.detach().numpy(), [x.grad.numpy() for x in leaves]


def compare(function, oracle, arguments, grad, tolerance):
    """Result and all gradients, relative to the largest entry of each."""
    out, grads = gradients(function, arguments, grad)
    expected, expected_grads = torch_gradients(oracle, arguments, grad)
    for actual, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        difference = np.abs(np.asarray(actual, np.float64) - wanted).max()
        assert difference < tolerance * np.abs(wanted).max()


def test_layer_norm():
    def oracle(x, scale, bias):
        return torch.nn.functional.layer_norm(x, (24,), scale, bias, eps=1e-6)

    # Rows of mean 5 and of tiny variance, where epsilon counts.
    x = draw(10, 24) * np.geomspace(1e-4, 10, 10, dtype=np.float32)[:, None] + 0.5
    arguments = (x, 1 + draw(24), draw(24))
    # Means of 24 float32 numbers; the row of deviation 1e-4 loses 0.5/1e-4 of its precision.
    compare(layer_norm, oracle, arguments, draw(10, 24), 2e-3)
    compare(layer_norm, oracle, (draw(10, 24), 1 + draw(24), draw(24)), draw(10, 24), 1e-6)


@pytest.mark.parametrize(
    # The gradient of bfloat16 rows is rounded to it.
    ("dtype", "tolerance"),
    [(jnp.float32, 1e-6), (jnp.bfloat16, 4e-3)],
)
def test_layer_norm_on_accelerators_keeps_rows_and_statistics(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(layer_norm_module, "platform", lambda: "gpu")

    def oracle(x, scale, bias):
        return torch.nn.functional.layer_norm(x, (24,), scale, bias, eps=1e-6)

    x = np.asarray(jnp.asarray(draw(10, 24), dtype), np.float32)
    arguments, grad = (x, 1 + draw(24), draw(24)), draw(10, 24)
    compare(lambda x, *rest: layer_norm(x.astype(dtype), *rest), oracle, arguments, grad, tolerance)
    _, pull_back = jax.vjp(layer_norm, jnp.asarray(x, dtype), *arguments[1:])
    assert pull_back(jnp.asarray(grad))[0].dtype == dtype
    # Of what is as large as the rows, the backward pass keeps them alone, in their own type.
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.shape == x.shape]
    assert [leaf.dtype for leaf in kept] == [dtype]


def test_layer_norm_on_accelerators_takes_rows_far_from_zero(monkeypatch):
    """The variance is a difference there: 100 deviations from zero it loses 100^2 2^-24."""
    monkeypatch.setattr(layer_norm_module, "platform", lambda: "gpu")
    x = 100 + draw(10, 24)
    expected = torch.nn.functional.layer_norm(torch.tensor(x, dtype=torch.float64), (24,), eps=1e-6)
    out = layer_norm(x, jnp.ones(24), jnp.zeros(24))
    np.testing.assert_allclose(out, expected.numpy(), atol=5e-3)
    assert np.all(np.isfinite(layer_norm(jnp.full((2, 24), 1e4), jnp.ones(24), jnp.zeros(24))))


def test_layer_norm_is_float32_for_any_input():
    out = LayerNorm(8)(jnp.ones((2, 8), jnp.bfloat16))
    assert out.dtype == jnp.float32


def test_gelu_is_exact():
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    compare(gelu, torch.nn.functional.gelu, (x,), np.ones_like(x), 3e-7)
    # Entry by entry: 1 + erf rounds at 2^-24, and is multiplied by x of about -5 where it is small.
    exact = torch.nn.functional.gelu(torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(gelu(x), exact, atol=1e-6)
    assert gelu(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    # Exact operands, so only sums (float32) and the rounding of gradients (bfloat16) differ.
    ("dtype", "tolerance"),
    [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)],
)
def test_dense(dtype, tolerance):
    x, kernel, grad = (
        np.asarray(jnp.asarray(a, dtype), np.float32)
        for a in (draw(20, 6), draw(6, 9), draw(20, 9))
    )
    arguments = (x, kernel, draw(9))

    def ours(x, kernel, bias):
        return dense(x.astype(dtype), kernel, bias, jnp.float32)

    compare(ours, lambda x, kernel, bias: x @ kernel + bias, arguments, grad, tolerance)
    _, grads = gradients(ours, arguments, grad)
    assert all(g.dtype == jnp.float32 for g in grads)


@pytest.mark.parametrize("out_dtype", [jnp.float32, jnp.bfloat16])
def test_dense_as_accelerators_do_it(out_dtype, monkeypatch):
    """The product itself gives the type that is asked for, as one that adds up in float32."""
    monkeypatch.setattr(products.jax, "default_backend", lambda: "gpu")
    x, kernel, grad = (
        np.asarray(jnp.asarray(a, jnp.bfloat16), np.float32)
        for a in (draw(20, 600), draw(600, 9), draw(20, 9))
    )

    def ours(x, kernel, bias):
        return dense(x.astype(jnp.bfloat16), kernel, bias, out_dtype)

    # Rounded to 8 bits twice, product and sum with the bias: 2^-8 of the largest. Adding 600
    # products up in bfloat16 would be off by twenty times that.
    compare(ours, lambda x, kernel, bias: x @ kernel + bias, (x, kernel, draw(9)), grad, 8e-3)
    jaxpr = str(jax.make_jaxpr(ours)(x, kernel, draw(9)))
    assert f"preferred_element_type={jnp.dtype(out_dtype)}" in jaxpr


@pytest.mark.parametrize(
    # Three gradients of the rows are added up in their type.
    ("dtype", "tolerance"),
    [(jnp.float32, 1e-6), (jnp.bfloat16, 1.2e-2)],
)
def test_dense_in_parts_is_the_whole_cut_apart(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(products, "platform", lambda: "gpu")
    x, kernel, grad = (
        np.asarray(jnp.asarray(a, dtype), np.float32)
        for a in (draw(20, 6), draw(6, 9), draw(20, 9))
    )

    def ours(x, kernel, bias):
        parts = dense_apart(x.astype(dtype), kernel, bias, 3)
        assert [(part.shape, part.dtype) for part in parts] == [((20, 3), dtype)] * 3
        return jnp.concatenate(parts, axis=1)

    oracle = lambda x, kernel, bias: x @ kernel + bias  # noqa: E731
    compare(ours, oracle, (x, kernel, draw(9)), grad, tolerance)
    # Nothing as wide as all parts together is made of the rows.
    made = str(jax.make_jaxpr(lambda *a: jax.vjp(dense_apart, *a, 3))(x, kernel, draw(9)))
    assert "[20,3]" in made and "[20,9]" not in made


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("over", [(-1, -2), (-1, -1), (-2, -2)])
def test_product_under_jit_with_a_transpose_before_and_after(dtype, over):
    """XLA:CPU folds transposes into products, in bfloat16 into ones that it cannot run."""
    x, y = jnp.asarray(draw(2, 3, 16, 16), dtype), jnp.asarray(draw(2, 3, 16, 16), dtype)

    def function(x, y):
        return jnp.swapaxes(product(jnp.swapaxes(x, -1, -2), y, over), -1, -2)

    left = np.asarray(x, np.float64).swapaxes(-1, -2)
    right = np.asarray(y, np.float64)
    left = left.swapaxes(-1, -2) if over[0] == -2 else left
    right = right.swapaxes(-1, -2) if over[1] == -1 else right
    out = jax.jit(function)(x, y)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, (left @ right).swapaxes(-1, -2), atol=1e-5)


def test_patches_are_a_convolution():
    """Kernel height and width, and the order of patches, on an oblong image."""
    module = PatchEmbed(4, 10, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = draw(2, 8, 12, 3)
    kernel = torch.from_numpy(np.array(module.proj.kernel[...])).permute(3, 2, 0, 1)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        kernel,
        torch.from_numpy(np.array(module.proj.bias[...])),
        stride=4,
    )
    np.testing.assert_allclose(module(images), expected.flatten(2).mT, atol=2e-6)


def test_linear_casts_operands_only():
    module = Linear(6, 9, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert module.kernel[...].dtype == jnp.float32
    assert module(draw(4, 6)).dtype == jnp.float32
    assert module(draw(4, 6), out_dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_dropout_statistics():
    keys = jax.random.split(jax.random.key(0), 50)
    out = np.asarray(dropout(jnp.ones((50 * 20, 30)), 0.1, keys))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.9)}
    # Five standard deviations of a binomial share of 30000, over all and between neighbours.
    zero = out == 0
    assert abs(zero.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / zero.size)
    both = zero[:, 1:] & zero[:, :-1]
    assert abs(both.mean() - 0.01) < 5 * np.sqrt(0.01 * 0.99 / both.size)
    assert np.any(out[:20] != out[20:40])


@pytest.mark.parametrize("random", [dropout, stochastic_depth])
def test_without_keys_or_rate_nothing_is_drawn(random):
    x = jnp.asarray(draw(6, 4))
    assert random(x, 0.5, None) is x
    assert random(x, 0.0, jax.random.split(jax.random.key(0), 3)) is x
    assert fold_keys(None, 1) is None


def test_block_drops_each_branch_of_each_image_on_its_own():
    """Every image's result is one of four: no branch, attention, MLP, or both, scaled by 1/keep."""
    rate, batch, tokens = 0.4, 400, 3
    options = dict(drop_rate=0.0, dtype=jnp.float32)
    block = Block(8, 2, drop_path_rate=rate, rngs=nnx.Rngs(0), **options)
    x = jnp.tile(jnp.asarray(draw(tokens, 8)), (batch, 1))
    keys = jax.random.split(jax.random.key(1), batch)
    out = jax.jit(lambda x: block(x, tokens, tokens, keys=keys))(x)
    out = np.asarray(out).reshape(batch, -1)

    one = x[:tokens]
    attended = one + block.attn(block.norm1(one), tokens, tokens) / (1 - rate)
    cases = []
    for start in (one, attended):
        cases += [start, start + block.mlp(block.norm2(start)) / (1 - rate)]
    distance = np.stack([np.abs(out - np.asarray(case).reshape(1, -1)).max(1) for case in cases])
    assert np.all(distance.min(0) < 1e-6)
    shares = np.bincount(distance.argmin(0), minlength=4) / batch
    expected = [rate**2, rate * (1 - rate), rate * (1 - rate), (1 - rate) ** 2]
    assert np.all(np.abs(shares - expected) < 5 * np.sqrt(0.25 / batch))


def test_mlp_drops_after_both_layers():
    """With the second layer the identity, zeros of the result tell both dropouts apart."""
    width, rate = 64, 0.25
    mlp = Mlp(width, width, drop_rate=rate, dtype=jnp.float32, rngs=nnx.Rngs(0))
    mlp.fc1.bias[...] = jnp.full(width, 3.0)
    mlp.fc2.kernel[...] = jnp.eye(width)
    keys = jax.random.split(jax.random.key(1), 200)
    out = np.asarray(mlp(jnp.zeros((200, width)), keys=keys))
    kept = out[out != 0]
    np.testing.assert_allclose(kept, float(gelu(jnp.float32(3.0))) / (1 - rate) ** 2, rtol=1e-5)
    assert abs((out != 0).mean() - (1 - rate) ** 2) < 5 * np.sqrt(0.25 / out.size)
