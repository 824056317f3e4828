"""Attention and its hand-written gradient beside PyTorch in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo as private
from jax.extend.core import jaxprs_in_params

from deit_jax.devices import traced_for
from deit_jax.models import cudnn_attention
from deit_jax.models.attention import Attention, attend, first_tokens, merge_heads, split_heads
from deit_jax.models.cudnn_attention import attend_cudnn

BATCH, HEADS, TOKENS, FEATURES = 3, 2, 7, 4
WIDTH = HEADS * FEATURES


def operands(queries, scale=1.0, seed=0):
    """Query, key, value and the gradient of the result, as float64."""
    rng = np.random.default_rng(seed)
    rows = (queries, TOKENS, TOKENS, queries)
    return [scale * rng.standard_normal((BATCH * n, WIDTH)) for n in rows]


def torch_attend(query, key, value, grad):
    """Softmax attention by its definition, and its gradients by autograd."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (query, key, value)]
    q, k, v = (
        x.reshape(BATCH, -1, HEADS, FEATURES).permute(0, 2, 1, 3) for x in leaves
    )  # [batch, heads, tokens, features]
    out = torch.softmax(q @ k.mT / FEATURES**0.5, dim=-1) @ v
    out = out.permute(0, 2, 1, 3).reshape(-1, WIDTH)
    out.backward(torch.tensor(grad, dtype=torch.float64))
    return out.detach().numpy(), [x.grad.numpy() for x in leaves]


def jax_attend(query, key, value, grad, dtype):
    arguments = [jnp.asarray(x, dtype) for x in (query, key, value)]
    out, pull_back = jax.vjp(lambda q, k, v: attend(q, k, v, BATCH, HEADS), *arguments)
    return out, pull_back(jnp.asarray(grad, out.dtype))


def assert_close(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("queries", [1, 2, TOKENS])
@pytest.mark.parametrize(
    # Rounding of a few operations, 2^-24 or 2^-8 each; gradients cancel more.
    ("dtype", "tolerance"),
    [(jnp.float32, 2e-6), (jnp.bfloat16, 3e-2)],
)
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_result_and_gradients(queries, dtype, tolerance, platform):
    given = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in operands(queries)]
    with traced_for(platform):
        out, grads = jax.jit(lambda *x: jax_attend(*x, dtype))(*given)
    expected, expected_grads = torch_attend(*given)
    assert out.dtype == dtype
    assert_close(np.asarray(out, np.float64), expected, tolerance)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert actual.dtype == dtype
        assert_close(np.asarray(actual, np.float64), wanted, tolerance)


@pytest.mark.parametrize("tokens", [6, 7])
def test_cudnn_gets_what_it_takes(tokens, monkeypatch):
    """Result and gradients by cuDNN itself on a GPU that has it; elsewhere XLA stands in for it."""
    dtype, tolerance = jnp.bfloat16, 3e-2
    if not cudnn_attention.takes(dtype, 8):
        called = jax.nn.dot_product_attention
        stand_in = lambda *given, implementation, **named: called(*given, **named)  # noqa: E731
        monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
        dtype, tolerance = jnp.float32, 2e-6
    rng = np.random.default_rng(0)
    given = [jnp.asarray(rng.standard_normal((3 * tokens, 16)), dtype) for _ in range(4)]

    def pulled(form):
        out, pull_back = jax.vjp(lambda q, k, v: form(q, k, v, 3, 2), *given[:3])
        return [np.asarray(x, np.float64) for x in (out, *pull_back(given[3]))]

    for actual, wanted in zip(pulled(attend_cudnn), pulled(attend), strict=True):
        assert_close(actual, wanted, tolerance)


@pytest.fixture
def cudnn_of_a_gpu(monkeypatch):
    """Let JAX build calls of cuDNN, which cannot be run here."""
    monkeypatch.setattr(private, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(private, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(private, "is_cuda_compute_capability_equal", lambda _: False)
    cudnn_attention.differentiates_odd.cache_clear()
    yield
    cudnn_attention.differentiates_odd.cache_clear()


def cudnn_calls(tokens):
    """Primitives of a differentiated call, by name, with their parameters and operands' shapes."""
    rows = jax.ShapeDtypeStruct((3 * tokens, 16), jnp.bfloat16)
    pulled = lambda q, k, v, g: jax.vjp(lambda *x: attend_cudnn(*x, 3, 2), q, k, v)[1](g)  # noqa: E731
    found = {}

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            shapes = [x.aval.shape for x in equation.invars]
            found[equation.primitive.name] = (equation.params, shapes)
            for inner in jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(pulled)(*[rows] * 4).jaxpr)
    return found


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there cuDNN itself is asked, above")
def test_odd_lengths_reach_cudnn_as_jax_hands_it_even_ones(cudnn_of_a_gpu):
    """The same calls with the same parameters as of JAX's own rule, but for the length; no pad."""
    even, odd = cudnn_calls(6), cudnn_calls(7)
    assert "pad" not in odd
    names = [name for name in odd if name.startswith("dot_product_attention")]
    assert len(names) == 2
    for name in names:
        (parameters, shapes), (known, known_shapes) = odd[name], even[name]
        changed = {key for key in known if known[key] != parameters[key]}
        assert parameters.keys() == known.keys() and not changed
        longer = {6: 7}
        assert shapes == [tuple(longer.get(n, n) for n in shape) for shape in known_shapes]


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there cuDNN itself is asked, above")
def test_another_jax_pads(cudnn_of_a_gpu, monkeypatch):
    monkeypatch.delattr(private, "_dot_product_attention_bwd_p_wrapper")
    assert not cudnn_attention.differentiates_odd(7, 8, jnp.bfloat16)
    assert cudnn_attention.differentiates_odd.cache_info().misses == 1


@pytest.mark.parametrize(
    ("dtype", "form", "queries", "expected"),
    [
        (jnp.bfloat16, "auto", TOKENS, True),
        (jnp.bfloat16, "recompute", TOKENS, False),
        (jnp.bfloat16, "auto", 2, False),
        (jnp.float32, "auto", TOKENS, False),
    ],
)
def test_cudnn_is_asked_where_it_helps(dtype, form, queries, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(cudnn_attention, "on_nvidia", lambda: True)
    monkeypatch.setattr(
        cudnn_attention, "attend_cudnn", lambda *given: asked.append(1) or attend(*given)
    )
    module = Attention(16, HEADS, drop_rate=0.0, dtype=dtype, rngs=nnx.Rngs(0), form=form)
    module(jnp.ones((BATCH * TOKENS, 16)), TOKENS, queries)
    assert bool(asked) == expected


def test_a_device_without_its_kernels_is_not_asked():
    assert jax.default_backend() == "gpu" or not cudnn_attention.takes(jnp.bfloat16, 64)


def test_large_scores_neither_overflow_nor_lose_gradients():
    """Scores up to several hundred: exp overflows float32 at 88."""
    given = operands(TOKENS, scale=20.0)
    out, grads = jax_attend(*given, jnp.float32)
    expected, expected_grads = torch_attend(*given)
    # Scores of size s have rounding s * 2^-24, which the exponential turns into a relative error.
    assert_close(out, expected, 2e-4)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert_close(actual, wanted, 2e-3)


def test_splitting_heads_is_the_order_of_the_reference():
    x = np.arange(BATCH * TOKENS * WIDTH, dtype=np.float32).reshape(BATCH * TOKENS, WIDTH)
    heads = split_heads(jnp.asarray(x), BATCH, HEADS)
    for image in range(BATCH):
        for head in range(HEADS):
            rows = x[image * TOKENS : (image + 1) * TOKENS]
            columns = slice(head * FEATURES, (head + 1) * FEATURES)
            np.testing.assert_array_equal(heads[image, head], rows[:, columns])
    np.testing.assert_array_equal(merge_heads(heads), x)


def test_first_tokens():
    x = jnp.arange(BATCH * TOKENS)[:, None].astype(jnp.float32)
    np.testing.assert_array_equal(first_tokens(x, TOKENS, 2)[:, 0], [0, 1, 7, 8, 14, 15])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_some_queries_give_the_rows_of_all(dtype):
    """Values and parameter gradients: projecting thirds apart is the one projection."""
    module = Attention(WIDTH, HEADS, drop_rate=0.0, dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(module)
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params
    )
    x = jax.random.normal(jax.random.key(1), (BATCH * TOKENS, WIDTH))

    def some(params, x):
        return nnx.merge(graphdef, params)(x, TOKENS, 2)

    def whole(params, x):
        return first_tokens(nnx.merge(graphdef, params)(x, TOKENS, TOKENS), TOKENS, 2)

    np.testing.assert_allclose(jax.jit(some)(params, x), jax.jit(whole)(params, x), atol=1e-6)
    weight = jax.random.normal(jax.random.key(2), (BATCH * 2, WIDTH))
    grads = [
        jax.jit(jax.grad(lambda *given, f=f: (f(*given) * weight).sum(), argnums=(0, 1)))(params, x)
        for f in (some, whole)
    ]
    # In bfloat16 gradients of all queries are summed before they are rounded, here after.
    tolerance = 2e-6 if dtype == jnp.float32 else 2e-2
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        assert_close(a, b, tolerance)


def test_maps_are_softmax_rows_that_reproduce_the_result():
    module = Attention(WIDTH, HEADS, drop_rate=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = 30 * jax.random.normal(jax.random.key(1), (BATCH * TOKENS, WIDTH))
    maps = module.maps(x, TOKENS)
    assert maps.shape == (BATCH, HEADS, TOKENS, TOKENS)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
    value = split_heads(module.qkv(x)[:, 2 * WIDTH :], BATCH, HEADS)
    expected = module.proj(merge_heads(maps @ value))
    assert_close(module(x, TOKENS, TOKENS), expected, 1e-5)
