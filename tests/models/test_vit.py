"""What the transformer promises beyond parity: randomness, initialisation, types, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.functional import split
from deit_jax.models.fusion import fuse
from deit_jax.models.layers import stochastic_depth
from deit_jax.models.vit import VisionTransformer


def build(dtype=jnp.float32, drop_rate=0.0, drop_path_rate=0.0, width=32, depth=3, **options):
    return VisionTransformer(
        VitArchitecture(4, width, depth, num_heads=2, distilled=True),
        num_classes=5,
        image_size=(8, 12),
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        dtype=dtype,
        rngs=nnx.Rngs(0),
        **options,
    )


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (8, 8, 12, 3))


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(2), 8)


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.5)])
def test_randomness_belongs_to_the_image(images, keys, rates):
    function, params, _ = split(build(drop_rate=rates[0], drop_path_rate=rates[1]))

    @jax.jit
    def logits(images, keys=None):
        return function.head_logits(params, {}, images, keys=keys)[0]

    whole = logits(images, keys)
    halves = [logits(images[i : i + 4], keys[i : i + 4]) for i in (0, 4)]
    for head in (0, 1):
        joined = jnp.concatenate([half[head] for half in halves])
        # Products of other shapes sum in another order; logits are of size 0.1.
        np.testing.assert_allclose(whole[head], joined, atol=2e-6)
    assert np.any(np.abs(whole[0] - logits(images)[0]) > 1e-3)
    other = logits(images, keys[::-1])
    assert np.any(np.abs(whole[0] - other[0]) > 1e-3)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    keys = jax.random.split(jax.random.key(0), 4000)
    out = stochastic_depth(jnp.ones((4000 * 3, 2)), 0.25, keys).reshape(4000, -1)
    kept = np.asarray(out[:, 0]) > 0
    np.testing.assert_allclose(out, np.where(kept, 1 / 0.75, 0.0)[:, None].repeat(6, 1), rtol=1e-6)
    # Five standard deviations of a binomial share.
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)


def test_depth_rates_rise_linearly_from_zero():
    rates = [block.drop_path_rate for block in build(drop_path_rate=0.1).blocks.values()]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 3))


@pytest.mark.slow
def test_initialisation():
    model = build(width=256, depth=1)
    block = model.blocks["0"]
    for param in (block.attn.qkv.kernel, block.mlp.fc1.kernel, block.mlp.fc2.kernel):
        values = np.asarray(param[...])
        # A normal of .02, not truncated at two deviations (which would have .0176).
        assert abs(values.std() - 0.02) < 0.0003
        assert np.abs(values).max() > 0.07
    bound = 1 / np.sqrt(4 * 4 * 3)
    for param in (model.patch_embed.proj.kernel, model.patch_embed.proj.bias):
        values = np.asarray(param[...])
        assert np.abs(values).max() <= bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.1 * bound
    assert not np.any(block.attn.qkv.bias[...]) and not np.any(model.head.bias[...])
    assert np.all(model.norm.scale[...] == 1)


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_gives_float32(images):
    exact, close = (jax.jit(build(t).head_logits)(images) for t in (jnp.float32, jnp.bfloat16))
    for a, b in zip(exact, close, strict=True):
        assert b.dtype == jnp.float32
        # Eight bits of mantissa through three blocks, against the largest logit.
        assert np.abs(a - b).max() < 0.03 * np.abs(a).max()


def test_a_residual_stream_in_bfloat16_is_rounded_after_each_sum(images):
    model = build(depth=2, residual_dtype=jnp.bfloat16)
    seen = model.activations(images[:2])
    x = seen["tokens"].astype(jnp.bfloat16)
    for block in ("blocks.0", "blocks.1"):
        for branch in ("attn", "mlp"):
            wide = np.asarray(x, np.float32) + np.asarray(seen[f"{block}.{branch}"], np.float32)
            x = jnp.asarray(wide).astype(jnp.bfloat16)
        assert seen[block].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(seen[block], np.float32), x.astype(np.float32))
    assert seen["norm"].dtype == seen["head"].dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("deit3", [False, True])
def test_gradients_through_a_residual_stream_in_bfloat16(images, keys, deit3):
    """As through one in float32 but for roundings to 8 bits, stochastic depth and all."""
    architecture = VitArchitecture(4, 32, 3, num_heads=2, distilled=not deit3, deit3=deit3)

    def gradient(residual_dtype):
        model = VisionTransformer(
            architecture,
            num_classes=5,
            image_size=(8, 12),
            drop_path_rate=0.3,
            residual_dtype=residual_dtype,
            rngs=nnx.Rngs(0),
        )
        function, params, _ = split(model)

        def loss(params):
            (logits, _), _ = function.head_logits(params, {}, images, keys=keys)
            assert logits.dtype == jnp.float32
            return jnp.square(logits).sum()

        grads = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
        assert {leaf.dtype for leaf in grads} == {jnp.dtype(jnp.float32)}
        return np.concatenate([leaf.ravel() for leaf in grads])

    exact, close = gradient(jnp.float32), gradient(jnp.bfloat16)
    distance = np.linalg.norm(close - exact) / np.linalg.norm(exact)
    # Each of six sums is rounded by at most 2^-9, forwards and backwards.
    assert 1e-5 < distance < 12 * 2**-9


@pytest.mark.slow
def test_the_short_last_block_equals_the_full_one(images):
    model = build()

    @jax.jit
    def both_ways(images):
        tokens = model.features(images)
        return model.head_logits(images), (model.head(tokens[:, 0]), model.head_dist(tokens[:, 1]))

    for short, full in zip(*both_ways(images), strict=True):
        np.testing.assert_allclose(full, short, atol=1e-6)


@pytest.mark.slow
def test_gradients_are_the_same_on_eight_devices(images, keys, eight_devices):
    function, params, _ = split(build(drop_path_rate=0.5))

    def loss(params, images, keys):
        heads, _ = function.head_logits(params, {}, images, keys=keys)
        return sum(jnp.mean(logits**2) for logits in heads)

    mesh = eight_devices
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    one = jax.jit(jax.grad(loss))(params, images, keys)
    eight = jax.jit(jax.grad(loss))(
        params, jax.device_put(images, sharding), jax.device_put(keys, sharding)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        # Sums over the batch in another order.
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1e-2, np.abs(a).max()))


@pytest.mark.slow
def test_runs_without_graph_mode(images):
    expected = jax.jit(build().__call__)(images)
    with nnx.set_graph_mode(False):
        function, params, _ = split(build())
        (a, b), _ = jax.jit(function.head_logits)(params, {}, images)
    np.testing.assert_allclose(fuse(a, b), expected, atol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
def test_raw_pixels_are_refused():
    with pytest.raises(TypeError, match="normalise"):
        build()(jnp.zeros((1, 8, 12, 3), jnp.uint8))


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="does not divide"):
        build(width=33)
    with pytest.raises(ValueError, match="drop_path_rate"):
        build(drop_path_rate=1.0)
    with pytest.raises(ValueError, match="8, 12, 3"):
        build()(jnp.zeros((1, 12, 8, 3)))


def test_sum_of_softmaxes():
    a, b = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    softmax = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (a, b)]
    fused = fuse(jnp.asarray(a), jnp.asarray(b), "sum_softmax")
    np.testing.assert_allclose(np.exp(fused), sum(softmax) / 2, rtol=2e-6)
    np.testing.assert_array_equal(fuse(jnp.asarray(a), None, "sum_softmax"), a)
    with pytest.raises(ValueError, match="mean_logits"):
        fuse(jnp.asarray(a), jnp.asarray(b), "product")
