"""Kernels, as JAX interprets them, beside PyTorch in float64 and beside what XLA makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from deit_jax.models.fused import gelu
from deit_jax.models.fused.add_norm import add_norm_backward, add_norm_forward
from deit_jax.models.fused.calls import interpreted, refusal
from deit_jax.models.fused.encoder import How, _mlp, _project
from deit_jax.models.fused.gelu import gradient_product_gelu, product_gelu
from tests.models.fused.test_encoder import h100

RNG = np.random.default_rng(0)
FLOAT, HALF = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


def draw(*shape, dtype=FLOAT, scale=1.0):
    return jnp.asarray(scale * RNG.standard_normal(shape), dtype)


def wide(tree):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def distances(found, expected):
    """Of each array, relative to its largest number."""
    pairs = zip(wide(found), wide(expected), strict=True)
    return [np.abs(x - y).max() / np.abs(y).max() for x, y in pairs]


def both(function, arguments, grads):
    """Results and gradients of everything, the kernels interpreted."""

    @jax.jit
    def run(arguments, grads):
        out, back = jax.vjp(function, *arguments)
        return out, back(grads)

    with interpreted():
        return run(arguments, grads)


def oracle(function, arguments, grads):
    """The same in PyTorch; gradients in the order of the arguments' leaves."""
    leaves, structure = jax.tree.flatten(arguments)
    leaves = [torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in leaves]
    out = function(*jax.tree.unflatten(structure, leaves))
    torch.autograd.backward(out, [torch.tensor(np.asarray(g, np.float64)) for g in grads])
    return [x.detach().numpy() for x in out], [x.grad.numpy() for x in leaves]


def end_of_branch(x, branch, keep, affine):
    total = x + (branch if keep is None else branch * keep[:, None])
    return total, torch.nn.functional.layer_norm(total, total.shape[-1:], *affine, eps=1e-6)


def affine(width):
    return 1 + draw(width, scale=0.3), draw(width)


@pytest.mark.parametrize(
    ("rows", "width", "stream", "kind", "kept", "tolerance"),
    [
        # 197 rows are no multiple of a tile. Sums of up to 768 numbers in float32.
        (197, 384, FLOAT, FLOAT, True, 2e-6),
        # As planned: rounded to 8 bits on the way in and out of memory, 2^-8 of the largest.
        (197, 384, HALF, HALF, True, 8e-3),
        (33, 768, HALF, HALF, False, 8e-3),
        (5, 192, FLOAT, HALF, False, 8e-3),
    ],
)
def test_end_of_a_branch(rows, width, stream, kind, kept, tolerance):
    x, mixed = draw(rows, width, dtype=stream), draw(rows, 16, dtype=kind)
    # The same to bfloat16, so that only results are rounded.
    weights = draw(16, width, dtype=HALF).astype(FLOAT), draw(width)
    keep = (jnp.abs(draw(rows)) + 0.1) if kept else None
    grads = draw(rows, width, dtype=stream), draw(rows, width, dtype=kind)
    arguments = (x, mixed, weights, keep, affine(width))

    def plain(x, mixed, weights, keep, affine):
        return end_of_branch(x, mixed @ weights[0] + weights[1], keep, affine)

    out, found = both(lambda *a: _project(*a, How(1e-6, kind, False)), arguments, grads)
    expected, gradients = oracle(plain, arguments, grads)
    assert [x.dtype for x in out] == [stream, kind]
    assert max(distances(out, expected)) < tolerance
    assert [x.dtype for x in found[:2]] == [stream, kind]
    leaves = jax.tree.leaves(found)
    if kept:
        # Which images keep a branch is drawn, not learnt.
        assert not np.asarray(leaves.pop(4)).any()
        gradients.pop(4)
    assert max(distances(leaves, gradients)) < tolerance


def test_mlp_with_gelu_in_its_products():
    rows, width, hidden = 150, 64, 256
    first = draw(width, hidden, dtype=HALF, scale=0.2).astype(FLOAT), draw(hidden)
    second = draw(hidden, width, dtype=HALF, scale=0.1).astype(FLOAT), draw(width)
    x, normal = draw(rows, width, dtype=HALF), draw(rows, width, dtype=HALF)
    grads = draw(rows, width, dtype=HALF), draw(rows, width, dtype=HALF)
    arguments = (x, normal, first, second, None, affine(width))

    def plain(x, normal, first, second, keep, affine):
        inside = torch.nn.functional.gelu(normal @ first[0] + first[1])
        return end_of_branch(x, inside @ second[0] + second[1], keep, affine)

    mlp = jax.jit(lambda *a: _mlp(*a, How(1e-6, HALF, True)))
    out, found = both(mlp, arguments, grads)
    with interpreted():
        inference = mlp(*arguments)
    assert max(distances(inference, out)) == 0.0
    expected, gradients = oracle(plain, arguments, grads)
    assert max(distances(out, expected)) < 8e-3
    # Rounded to 8 bits behind both products and before GELU.
    assert max(distances(found, gradients)) < 1.6e-2


@pytest.mark.parametrize("rows", [128, 197])
def test_gelu_kernels_give_what_xla_gives(rows):
    """To a last bit of bfloat16 here and there, by which sums in another order are rounded."""
    x, kernel = draw(rows, 192, dtype=HALF), draw(192, 96, dtype=HALF, scale=0.1)
    grad, second, bias = draw(rows, 48, dtype=HALF), draw(96, 48, dtype=HALF), draw(96)
    forward = jax.jit(lambda *a: product_gelu((a[0],), *a[1:]))
    backward = jax.jit(lambda *a: gradient_product_gelu(a[:2], a[2]))
    with interpreted():
        before, behind = forward(x, kernel, bias)
        out, sums = backward(grad, before, second)
        (alone,) = jax.jit(lambda *a: product_gelu((a[0],), *a[1:], with_before=False))(
            x, kernel, bias
        )
    np.testing.assert_array_equal(alone, behind)
    expected = product_gelu.twin((x,), kernel, bias)
    assert max(distances((before, behind), expected)) < 4e-3
    plain, summed = gradient_product_gelu.twin((grad, before), second)
    assert max(distances((out, sums.sum(0)), (plain, summed[0]))) < 8e-3


def test_normal_distribution_without_erf():
    x = jnp.linspace(-12, 12, 4001)
    distribution, density = gelu._distribution(x)
    exact = torch.special.ndtr(torch.tensor(np.asarray(x, np.float64))).numpy()
    # The published bound of erf is 1.5e-7, half of which is left; and five sums in float32.
    assert np.abs(np.asarray(distribution) - exact).max() < 2.5e-7
    assert np.allclose(density, np.exp(-0.5 * wide(x)[0] ** 2) / np.sqrt(2 * np.pi), atol=1e-7)


@pytest.mark.parametrize("width", [192, 384, 768, 1024])
def test_kernels_are_lowered_for_gpus(width):
    """By the JAX that is installed, without a GPU; JAX 0.11 calls this way deprecated."""

    def array(*shape, dtype=HALF):
        return jax.ShapeDtypeStruct(shape, dtype)

    rows, line, vector = array(591, width), array(591, dtype=FLOAT), array(width, dtype=FLOAT)
    hidden = array(591, 4 * width)
    options = (("dtype", HALF),)
    inner = (rows,), array(width, 4 * width), array(4 * width, dtype=FLOAT)
    for kernel, arguments, static in (
        (add_norm_forward, ((rows, rows, line), *[vector] * 3), (*options, ("epsilon", 1e-6))),
        (add_norm_backward, ((*[rows] * 3, line, line, line), vector), options),
        (product_gelu, inner, ()),
        (product_gelu, inner, (("with_before", False),)),
        (gradient_product_gelu, ((rows, hidden), array(4 * width, width)), ()),
    ):
        with h100():
            assert refusal(kernel.run, (arguments[0], arguments[1:]), static) == ""
