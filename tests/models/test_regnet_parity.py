"""RegNetY beside timm's, with random weights and BatchNorm statistics that are not neutral."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
from timm.models.regnet import RegNet as TimmRegNet
from timm.models.regnet import RegNetCfg

from deit_jax.models import regnet
from deit_jax.models.functional import abstract, count_parameters, initialise
from deit_jax.models.registry import model_spec

PUBLISHED = [spec.name for spec in regnet.MODELS if spec.in_timm]
# The same four stages as timm's quantised linear rule gives for SMALL_TIMM.
SMALL = regnet.regnet_architecture((16, 32, 64, 128), (1, 1, 2, 1), group_width=16, stem=(16, 3, 2))
SMALL_TIMM = RegNetCfg(w0=16, wa=24, wm=2, depth=5, group_size=16, se_ratio=0.25, stem_width=16)
TIMM_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of our kernels in timm's order: OIHW from HWIO, (out, in) from (in, out).
TIMM_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


def timm_small(**options):
    return TimmRegNet(SMALL_TIMM, num_classes=10, **options)


def builder(name, **options):
    if name == "small":
        constructor = partial(regnet.RegNet, SMALL, num_classes=10, image_size=(64, 64))
    else:
        constructor = partial(model_spec(name).build, num_classes=1000, image_size=(224, 224))
    return lambda rngs: constructor(rngs=rngs, **options)


def randomise(model, seed):
    """Give every parameter and statistic a value that matters, yet keep activations in proportion.

    Arbitrary statistics would amplify float32 rounding, in PyTorch as much as here, so they are
    those of random images, slightly off.
    """
    torch.manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn.weight"):
                # A residual branch counts for less than its shortcut, as in trained networks.
                parameter.uniform_(0.5, 1.5).mul_(0.25 if "conv3" in name else 1.0)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2)
        for norm in norms:
            norm.momentum = 1.0
        model.train()(torch.randn(4, 3, 64, 64))
        for norm in norms:
            norm.momentum = 0.1
            norm.running_mean.add_(0.1 * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
    return model


def from_timm(tree, tensors, path=()):
    """Fill a tree shaped like `tree` from tensors named as in timm."""
    filled = {}
    for name, child in tree.items():
        if isinstance(child, dict):
            filled[name] = from_timm(child, tensors, (*path, name))
            continue
        array = tensors[".".join((*path, TIMM_NAMES[name]))].detach().numpy()
        array = array.transpose(np.argsort(TIMM_AXES[array.ndim]))
        assert array.shape == child.shape
        filled[name] = jnp.asarray(array, jnp.float32)
    return filled


def flat_names(tree, path=()):
    for name, child in tree.items():
        if isinstance(child, dict):
            yield from flat_names(child, (*path, name))
        else:
            yield ".".join((*path, TIMM_NAMES[name])), child


def error(actual, expected):
    """Largest difference, in units of the largest expected value."""
    expected = np.asarray(expected)
    return np.abs(np.asarray(actual) - expected).max() / (np.abs(expected).max() + 1e-30)


# All convnets are compared in weights/test_convnet_names.py, by the package's own table.
@pytest.mark.parametrize(
    "name", [PUBLISHED[0], *(pytest.param(n, marks=pytest.mark.full) for n in PUBLISHED[1:])]
)
def test_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        reference = timm.create_model(name)
    _, params, stats = abstract(builder(name))
    ours = {
        name: tuple(leaf.shape[axis] for axis in TIMM_AXES[leaf.ndim])
        for tree in (params, stats)
        for name, leaf in flat_names(tree)
    }
    state = reference.state_dict().items()
    assert ours == {k: tuple(v.shape) for k, v in state if not k.endswith("num_batches_tracked")}
    expected = sum(p.numel() for p in reference.parameters())
    assert count_parameters(params) == expected == model_spec(name).parameters
    assert model_spec(name).image_size == (224, 224)


@pytest.mark.parametrize(
    ("name", "size"),
    [("small", 64), ("small", 75), pytest.param("regnety_040", 96, marks=pytest.mark.full)],
)
def test_inference_equals_timm(name, size):
    reference = randomise(timm_small() if name == "small" else timm.create_model(name), 0).eval()
    function, params, stats = abstract(builder(name))
    weights = reference.state_dict()
    params, stats = from_timm(params, weights), from_timm(stats, weights)
    images = np.random.default_rng(1).normal(size=(3, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference.double()(torch.from_numpy(images).permute(0, 3, 1, 2).double())
    (logits, distill), after = jax.jit(function.head_logits)(params, stats, images)
    assert distill is None and logits.dtype == jnp.float32
    # Measured 1.5e-6 for regnety_040; PyTorch's own float32 is as far from its float64.
    assert error(logits, expected.numpy()) < 1e-5
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, after))


def test_training_equals_torch():
    reference = randomise(timm_small(), 2).train()
    function, params, stats = abstract(builder("small"))
    weights = reference.state_dict()
    params, stats = from_timm(params, weights), from_timm(stats, weights)
    rng = np.random.default_rng(3)
    images = rng.normal(size=(8, 64, 64, 3)).astype(np.float32)
    target = rng.normal(size=(8, 10)).astype(np.float32)

    reference = reference.double()
    outputs = reference(torch.from_numpy(images).permute(0, 3, 1, 2).double())
    (outputs * torch.from_numpy(target)).sum().backward()

    @jax.jit
    def evaluate(params):
        def loss(params):
            (logits, _), after = function.head_logits(params, stats, images, train=True)
            return (logits * target).sum(), (logits, after)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (logits, after)), grads = evaluate(params)
    assert error(logits, outputs.detach().numpy()) < 1e-4
    expected = from_timm(stats, reference.state_dict())
    assert max(jax.tree.leaves(jax.tree.map(error, after, expected))) < 1e-5
    expected = from_timm(params, {k: p.grad for k, p in reference.named_parameters()})
    # float32 rounding, through the means and variances of 20 layers, against float64.
    assert max(jax.tree.leaves(jax.tree.map(error, grads, expected))) < 1e-4


def test_initialisation_has_timms_distribution():
    torch.manual_seed(0)
    weights = timm_small().state_dict()
    params, stats = jax.jit(lambda key: initialise(builder("small"), key))(jax.random.key(0))
    ours = {name: np.asarray(leaf) for tree in (params, stats) for name, leaf in flat_names(tree)}
    for name, values in ours.items():
        expected = weights[name].numpy()
        if expected.std() == 0.0:
            # Scales 0 (last of a block) and 1, biases 0, statistics 0 and 1.
            np.testing.assert_array_equal(values, expected, err_msg=name)
            continue
        # Relative error of the deviation of n normal numbers: 1 / sqrt(2 n), in both samples.
        tolerance = 5 * expected.size**-0.5
        assert values.std() / expected.std() == pytest.approx(1.0, abs=tolerance), name
        assert values.mean() / expected.std() == pytest.approx(0.0, abs=tolerance), name
    # Normal rather than uniform (1.8) or cut at two deviations (2.1): the fourth moment is 3.
    kernel = ours["s4.b1.conv3.conv.weight"]
    assert (kernel**4).mean() / kernel.var() ** 2 == pytest.approx(3.0, abs=0.3)


def test_stochastic_depth_rates_are_timms():
    reference = timm_small(drop_path_rate=0.3)
    function, params, stats = abstract(builder("small", drop_path_rate=0.3))
    model = function.merge(params, stats)
    for stage, depth in enumerate((s.depth for s in SMALL.stages), start=1):
        for number in range(1, depth + 1):
            theirs = getattr(getattr(reference, f"s{stage}"), f"b{number}").drop_path
            rate = getattr(model, f"s{stage}")[f"b{number}"].drop_path_rate
            assert rate == pytest.approx(getattr(theirs, "drop_prob", 0.0), abs=1e-6)
