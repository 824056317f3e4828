"""RegNetY's behaviour where no other implementation is needed to tell right from wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deit_jax.models import convnet, convolution
from deit_jax.models.frozen import freeze
from deit_jax.models.functional import abstract, count_parameters
from deit_jax.models.registry import model_spec

MICRO = model_spec("regnety_micro")


def micro(rngs, **options):
    return MICRO.build(num_classes=10, image_size=(16, 16), rngs=rngs, **options)


@pytest.fixture(scope="module")
def trained():
    """Parameters without scales of zero, so that residual branches count."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = (2.0 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim > 1 else 0.1
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.float32(rng.normal(centre, spread, leaf.shape))

    return jax.tree.map_with_path(draw, abstract(micro)[1:])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype(np.float32)


def test_micro_matches_its_entry():
    function, params, stats = abstract(micro)
    assert count_parameters(params) == MICRO.parameters
    assert set(params) == {"stem", "s1", "s2", "s3", "head"}
    assert set(stats) == {"stem", "s1", "s2", "s3"}
    model = function.merge(params, stats)
    assert (model.num_classes, model.image_size) == (10, (16, 16))
    assert not model.has_distillation_head


def test_state_is_parameters_and_batch_statistics_only():
    state = nnx.state(nnx.eval_shape(lambda: micro(nnx.Rngs(0))))
    variables = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    assert {type(variable) for variable in variables} == {nnx.Param, nnx.BatchStat}


@pytest.mark.slow
def test_frozen_in_bfloat16_as_accelerators_do_it(trained, images, monkeypatch):
    """Biases join the products, in bfloat16; a block's sum is finished before the next begins."""
    exact = freeze("regnety_micro", *trained)
    narrow, params = freeze("regnety_micro", *trained, dtype=jnp.bfloat16)

    def traced():
        return jax.jit(lambda params: narrow.head_logits(params, {}, images)[0][0]).trace(params)

    assert "optimization_barrier" not in str(traced().jaxpr)
    for module in (convolution, convnet):
        monkeypatch.setattr(module, "platform", lambda: "gpu")
    told = str(traced().jaxpr)
    assert told.count("optimization_barrier") == 4
    assert "bf16[16,8,8,16] = add" in told and ":f32[16,8,8,16] = add" not in told
    expected = exact[0].head_logits(exact[1], {}, images)[0][0]
    found = traced().lower().compile()(params)
    distance = jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)
    # Four blocks of four layers, each rounded to 8 bits.
    assert distance < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"drop_path_rate": 0.5}, {"drop_rate": 0.5}])
def test_randomness_belongs_to_the_image_and_its_key(trained, images, options):
    function, _, _ = abstract(partial(micro, **options))
    run = jax.jit(lambda x, keys: function.head_logits(*trained, x, keys=keys)[0][0])
    keys = jax.random.split(jax.random.key(2), len(images))
    together = run(images, keys)
    # Another batch composition; float32 sums may be taken in another order.
    order = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_allclose(
        run(images[order], keys[order]), together[order], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(run(images[:4], keys[:4]), together[:4], rtol=1e-5, atol=1e-5)
    assert not np.allclose(run(images, jax.random.split(jax.random.key(3), len(images))), together)
    plain = jax.jit(lambda x: function.head_logits(*trained, x)[0][0])(images)
    same = jax.jit(lambda x: function.merge(*trained)(x))(images)
    np.testing.assert_allclose(plain, same, rtol=1e-5, atol=1e-5)
    assert not np.allclose(plain, together)


def test_dropped_branches_leave_the_shortcut(trained):
    block = abstract(partial(micro, drop_path_rate=0.75))[0].merge(*trained).s2["b2"]
    assert block.drop_path_rate == pytest.approx(0.5)
    x = jnp.abs(jax.random.normal(jax.random.key(0), (400, 2, 2, 32)))
    keys = jax.random.split(jax.random.key(1), 400)

    @jax.jit
    def outputs(x):
        hidden = jax.nn.relu(block.conv1(x, train=False))
        hidden = jax.nn.relu(block.conv2(hidden, train=False))
        return block(x, keys=keys), block.conv3(block.se(hidden), train=False)

    actual, branch = outputs(x)
    # With rate 1/2 each image is one of two: its branch left out, or doubled.
    distance = [np.abs(actual - jax.nn.relu(x + f * branch)).max((1, 2, 3)) for f in (0.0, 2.0)]
    dropped, kept = (d < 1e-5 for d in distance)
    assert np.all(dropped ^ kept)
    # Binomial(400, 1/2): five standard deviations.
    assert abs(dropped.sum() - 200) < 50


def training_step(build):
    function, _, _ = abstract(build)

    def step(params, stats, images, keys):
        def loss(params):
            (logits, _), after = function.head_logits(params, stats, images, keys=keys, train=True)
            return -jax.nn.log_softmax(logits)[:, 3].mean(), (logits, after)

        (value, (logits, after)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, logits, after, grads

    return jax.jit(step)


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).normal(size=(128, 16, 16, 3)).astype(np.float32)
    return images, jax.random.split(jax.random.key(5), 128)


@pytest.fixture(scope="module")
def expected_step(trained, batch):
    """Loss, logits, statistics and gradients in float32 on one device."""
    return training_step(partial(micro, drop_path_rate=0.2))(*trained, *batch)


@pytest.mark.slow
def test_statistics_are_those_of_the_whole_batch_on_eight_devices(
    trained, batch, expected_step, eight_devices
):
    mesh = eight_devices
    shard, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    step = training_step(partial(micro, drop_path_rate=0.2))
    actual = step(*jax.device_put(trained, everywhere), *jax.device_put(batch, shard))
    assert len(actual[1].sharding.device_set) == 8
    # The same float32 sums in another order.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, actual, expected_step)


@pytest.mark.slow
def test_bfloat16_operands_give_nearly_the_same(trained, batch, expected_step):
    actual = training_step(partial(micro, drop_path_rate=0.2, dtype=jnp.bfloat16))(*trained, *batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype("float32")}
    # bfloat16 keeps 8 bits, a relative 4e-3 in each of some fifteen layers.
    assert np.abs(actual[1] - expected_step[1]).max() < 0.03 * np.abs(expected_step[1]).max()
    ours, exact = (
        np.concatenate([g.ravel() for g in jax.tree.leaves(step[3])])
        for step in (actual, expected_step)
    )
    assert np.vdot(ours, exact) / (np.linalg.norm(ours) * np.linalg.norm(exact)) > 0.98


@pytest.mark.slow
def test_runs_without_graph_mode(trained, batch, expected_step):
    with nnx.set_graph_mode(False):
        actual = training_step(partial(micro, drop_path_rate=0.2))(*trained, *batch)
    jax.tree.map(np.testing.assert_array_equal, actual, expected_step)


@pytest.mark.parametrize("options", [{"drop_rate": 1.0}, {"drop_path_rate": -0.1}])
def test_impossible_probabilities_are_refused(options):
    with pytest.raises(ValueError, match="probability"):
        micro(nnx.Rngs(0), **options)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("shape", "dtype", "error", "words"),
    [
        ((2, 3, 16, 16), "float32", ValueError, r"\(2, 3, 16, 16\) but takes \[batch, height, "),
        ((16, 16, 3), "float32", ValueError, r"\(16, 16, 3\) but takes"),
        ((2, 16, 16, 3), "uint8", TypeError, "normalise them"),
    ],
)
def test_images_in_another_form_are_refused(shape, dtype, error, words):
    function, *trees = abstract(micro)
    with pytest.raises(error, match=words):
        jax.eval_shape(function.head_logits, *trees, jax.ShapeDtypeStruct(shape, dtype))
