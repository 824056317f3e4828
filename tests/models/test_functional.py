"""Taking models apart and putting them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deit_jax.models import functional, vit


def builder(depth=12):
    def build(rngs):
        return vit.VisionTransformer(
            3, (8, 8), patch_size=4, width=8, depth=depth, num_heads=2, rngs=rngs
        )

    return build


def images(batch=2):
    return jax.random.normal(jax.random.key(5), (batch, 8, 8, 3))


def test_initialise_is_the_module_and_works_inside_jit():
    build, key = builder(), jax.random.key(7)
    module = build(nnx.Rngs(key))
    params, stats = jax.jit(lambda key: functional.initialise(build, key))(key)
    function, shapes, _ = functional.abstract(build)
    assert stats == {}
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    # Blocks "10" and "11" sort before "2": depth 12 would show a wrong order.
    expected = module(images())
    np.testing.assert_allclose(function.merge(params, stats)(images()), expected, atol=1e-6)
    other, _ = functional.initialise(build, jax.random.key(8))
    assert np.any(other["head"]["kernel"] != params["head"]["kernel"])


def test_state_holds_string_keys_and_parameters_only():
    module = builder()(nnx.Rngs(0))
    _, params, rest = nnx.split(module, nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(params)):
        assert all(isinstance(entry.key, str) for entry in path)
        assert leaf.dtype == jnp.float32


def test_the_static_half_is_hashable_and_equal_for_equal_models():
    a, b, c = (functional.abstract(builder(depth))[0] for depth in (2, 2, 3))
    assert a == b and hash(a) == hash(b) and a != c


@pytest.mark.parametrize("graph_mode", [True, False])
def test_jit_and_grad_with_and_without_graph_mode(graph_mode):
    with nnx.set_graph_mode(graph_mode):
        function, _, stats = functional.abstract(builder(2))
        params, _ = functional.initialise(builder(2), jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), 2)

        @jax.jit
        def loss(params, images):
            (logits, _), after = function.head_logits(params, stats, images, keys=keys, train=True)
            assert after == {}
            return jnp.mean(logits**2)

        grads = jax.grad(loss)(params, images())
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    # Directional derivative by central differences; float32 keeps about three digits of it.
    step = jax.tree.map(lambda g: 0.02 * g / jnp.linalg.norm(g.ravel()).clip(1e-6), grads)
    ends = [
        loss(jax.tree.map(lambda p, s, sign=sign: p + sign * s, params, step), images())
        for sign in (1, -1)
    ]
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, s: (g * s).sum(), grads, step)))
    assert abs((ends[0] - ends[1]) / 2 - slope) < 0.05 * abs(slope)


def test_count_parameters():
    assert functional.count_parameters({"a": {"b": jnp.zeros((2, 3))}, "c": jnp.zeros(())}) == 7
