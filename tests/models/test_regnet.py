"""RegNetY's behaviour where no other implementation is needed to tell right from wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from deit_jax.models import regnet
from deit_jax.models.functional import abstract, count_parameters, initialise

MICRO = regnet.MODELS["regnety_micro"]


def micro(rngs, **options):
    return MICRO["build"](num_classes=10, image_size=(16, 16), rngs=rngs, **options)


@pytest.fixture(scope="module")
def trained():
    """Parameters whose last scales are not zero, so that residual branches count."""
    params, stats = jax.jit(partial(initialise, micro))(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return structure.unflatten(noise), stats


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype(np.float32)


def test_micro_matches_its_entry():
    function, params, stats = abstract(micro)
    assert count_parameters(params) == MICRO["parameters"]
    assert set(params) == {"stem", "s1", "s2", "s3", "head"}
    assert set(stats) == {"stem", "s1", "s2", "s3"}
    model = function.merge(params, stats)
    assert (model.num_classes, model.image_size, model.has_distillation_head) == (
        10,
        (16, 16),
        False,
    )
    # 8x8 after the stem, 2x2 before the head: two more halvings would leave nothing to pool.
    shapes = jax.eval_shape(
        lambda model, x: model.stem(x, train=False), model, jnp.ones((1, 16, 16, 3))
    )
    assert shapes.shape == (1, 8, 8, 16)


def test_state_is_parameters_and_batch_statistics_only():
    state = nnx.state(micro(nnx.Rngs(0)))
    assert {
        type(leaf) for leaf in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    } == {nnx.Param, nnx.BatchStat}


def test_initialisation_has_timms_distribution():
    torch.manual_seed(0)
    reference = dict(timm.create_model("regnety_040").named_parameters())
    build = partial(regnet.MODELS["regnety_040"]["build"], num_classes=1000, image_size=(224, 224))
    params, stats = jax.jit(lambda key: initialise(lambda rngs: build(rngs=rngs), key))(
        jax.random.key(0)
    )
    kernels = {
        "stem.conv": params["stem"]["conv"],
        "s1.b1.conv2.conv": params["s1"]["b1"]["conv2"]["conv"],
        "s3.b2.conv2.conv": params["s3"]["b2"]["conv2"]["conv"],
        "s3.b2.conv3.conv": params["s3"]["b2"]["conv3"]["conv"],
        "s4.b1.downsample.conv": params["s4"]["b1"]["downsample"]["conv"],
        "s4.b1.se.fc1": params["s4"]["b1"]["se"]["fc1"],
        "s4.b1.se.fc2": params["s4"]["b1"]["se"]["fc2"],
        "head.fc": params["head"]["fc"],
    }
    for name, layer in kernels.items():
        expected = reference[f"{name}.weight"].detach()
        # Four standard errors of the deviation of the sample on either side.
        tolerance = 4 * 2 * (0.5 / expected.numel()) ** 0.5
        assert float(layer["kernel"].std()) == pytest.approx(expected.std().item(), rel=tolerance)
        # Normal, not uniform or cut off: kurtosis 3.
        centred = layer["kernel"] / layer["kernel"].std()
        assert float((centred**4).mean()) == pytest.approx(3.0, rel=0.35)
        if "bias" in layer:
            assert not layer["bias"].any()
    for path, leaf in jax.tree.leaves_with_path(params):
        names = [entry.key for entry in path]
        if names[-1] == "scale":
            assert np.all(np.asarray(leaf) == (0.0 if "conv3" in names else 1.0)), names
        if names[-2:] == ["bn", "bias"]:
            assert not leaf.any()
    for path, leaf in jax.tree.leaves_with_path(stats):
        assert np.all(np.asarray(leaf) == (1.0 if path[-1].key == "var" else 0.0))


def test_stochastic_depth_rates_are_timms():
    reference = timm.create_model("regnety_040", drop_path_rate=0.3)
    build = regnet.MODELS["regnety_040"]["build"]
    function, params, stats = abstract(
        lambda rngs: build(num_classes=9, image_size=(64, 64), drop_path_rate=0.3, rngs=rngs)
    )
    model = function.merge(params, stats)
    for stage, depth in enumerate((2, 6, 12, 2), start=1):
        for number in range(1, depth + 1):
            theirs = getattr(getattr(reference, f"s{stage}"), f"b{number}").drop_path
            rate = getattr(model, f"s{stage}")[f"b{number}"].drop_path_rate
            assert rate == pytest.approx(getattr(theirs, "drop_prob", 0.0), abs=1e-6)


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
    plain = function.head_logits(*trained, images)[0][0]
    same = jax.jit(lambda x: function.merge(*trained)(x))(images)
    np.testing.assert_allclose(plain, same, rtol=1e-5, atol=1e-5)
    assert not np.allclose(plain, together)


def test_dropped_branches_leave_the_shortcut(trained, images):
    block = abstract(partial(micro, drop_path_rate=0.75))[0].merge(*trained).s2["b2"]
    assert block.drop_path_rate == pytest.approx(0.5)
    x = jnp.abs(jax.random.normal(jax.random.key(0), (400, 2, 2, 32)))
    keys = jax.random.split(jax.random.key(1), 400)
    ours = np.asarray(jax.jit(lambda x, keys: block(x, keys=keys))(x, keys))
    # With identical residual branches doubled or dropped, each image is one of two closed forms.
    shortcut = np.asarray(x)
    bare = abstract(micro)[0].merge(*trained).s2["b2"]
    branch = np.asarray(
        bare.conv3(
            bare.se(jax.nn.relu(bare.conv2(jax.nn.relu(bare.conv1(x, train=False)), train=False))),
            train=False,
        )
    )
    kept = np.maximum(shortcut + 2.0 * branch, 0.0)
    is_dropped = np.array(
        [np.allclose(a, b, atol=1e-5) for a, b in zip(ours, shortcut, strict=True)]
    )
    is_kept = np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(ours, kept, strict=True)])
    assert np.all(is_dropped ^ is_kept)
    # Binomial(400, 1/2): five standard deviations.
    assert abs(is_dropped.sum() - 200) < 50


def training_step(function):
    def step(params, stats, images, keys):
        def loss(params):
            (logits, _), after = function.head_logits(params, stats, images, keys=keys, train=True)
            return -jax.nn.log_softmax(logits)[:, 3].mean(), (logits, after)

        (value, (logits, after)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, logits, after, grads

    return jax.jit(step)


def test_statistics_are_those_of_the_whole_batch_on_eight_devices(trained, images):
    step = training_step(abstract(partial(micro, drop_path_rate=0.2))[0])
    keys = jax.random.split(jax.random.key(5), len(images))
    single = step(*trained, images, keys)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    shard, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    many = step(*jax.device_put(trained, everywhere), *jax.device_put((images, keys), shard))
    assert len(many[1].sharding.device_set) == 8
    # Sums in another order, in float32.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), single, many)


def test_bfloat16_operands_give_nearly_the_same(trained, images):
    keys = jax.random.split(jax.random.key(5), len(images))
    exact = training_step(abstract(micro)[0])(*trained, images, keys)
    rough = training_step(abstract(partial(micro, dtype=jnp.bfloat16))[0])(*trained, images, keys)
    assert {leaf.dtype for leaf in jax.tree.leaves(rough)} == {jnp.dtype("float32")}
    scale = np.abs(exact[1]).max()
    # bfloat16 keeps 8 bits, a relative 4e-3 in each of some fifteen layers.
    assert np.abs(exact[1] - rough[1]).max() < 0.03 * scale
    cosine = [
        np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        for a, b in zip(jax.tree.leaves(exact[3]), jax.tree.leaves(rough[3]), strict=True)
    ]
    assert min(cosine) > 0.98


def test_runs_without_graph_mode(trained, images):
    keys = jax.random.split(jax.random.key(5), len(images))
    expected = training_step(abstract(micro)[0])(*trained, images, keys)
    with nnx.set_graph_mode(False):
        actual = training_step(abstract(micro)[0])(*trained, images, keys)
    jax.tree.map(np.testing.assert_array_equal, expected, actual)


@pytest.mark.parametrize("options", [{"drop_rate": 1.0}, {"drop_path_rate": -0.1}])
def test_impossible_probabilities_are_refused(options):
    with pytest.raises(ValueError, match="probability"):
        micro(nnx.Rngs(0), **options)
