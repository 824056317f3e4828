"""Taking models apart and putting them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deit_jax.models import functional, vit
from deit_jax.models.architecture import VitArchitecture


def builder(depth=11):
    def build(rngs):
        sizes = VitArchitecture(4, 8, depth, num_heads=2)
        return vit.VisionTransformer(sizes, num_classes=3, image_size=(8, 8), rngs=rngs)

    return build


def images(batch=2):
    return jax.random.normal(jax.random.key(5), (batch, 8, 8, 3))


@pytest.mark.slow
def test_initialise_is_the_module_and_works_inside_jit():
    build, key = builder(), jax.random.key(7)
    module = build(nnx.Rngs(key))
    initialise = jax.jit(lambda key: functional.initialise(build, key))
    params, stats = initialise(key)
    function, shapes, _ = functional.abstract(build)
    assert stats == {}
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    # Block "10" sorts before "2", which must not decide the order of computation.
    expected = jax.jit(module.__call__)(images())
    actual = jax.jit(lambda params: function.merge(params, stats)(images()))(params)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    other, _ = initialise(jax.random.key(8))
    assert np.any(other["head"]["kernel"] != params["head"]["kernel"])


def test_state_holds_string_keys_and_parameters_only():
    module = builder(2)(nnx.Rngs(0))
    _, params, rest = nnx.split(module, nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(params)):
        assert all(isinstance(entry.key, str) for entry in path)
        assert leaf.dtype == jnp.float32


def test_the_static_half_is_hashable_and_equal_for_equal_models():
    a, b, c = (functional.abstract(builder(depth))[0] for depth in (2, 2, 3))
    assert a == b and hash(a) == hash(b) and a != c


@pytest.mark.slow
def test_nothing_depends_on_graph_mode():
    """Newer versions of Flax turn NNX's graph mode off."""
    keys = jax.random.split(jax.random.key(1), 2)

    def run():
        function, _, stats = functional.abstract(builder(2))
        params, _ = functional.initialise(builder(2), jax.random.key(0))

        def loss(params):
            (logits, _), after = function.head_logits(
                params, stats, images(), keys=keys, train=True
            )
            assert after == {}
            return jnp.mean(logits**2)

        return jax.jit(jax.value_and_grad(loss))(params)

    expected = run()
    with nnx.set_graph_mode(False):
        actual = run()
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_count_parameters():
    assert functional.count_parameters({"a": {"b": jnp.zeros((2, 3))}, "c": jnp.zeros(())}) == 7
