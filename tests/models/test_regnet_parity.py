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
from deit_jax.models.functional import abstract, count_parameters

PUBLISHED = [name for name in regnet.MODELS if name != "regnety_micro"]
# The same four stages as timm's quantised linear rule gives for SMALL_TIMM.
SMALL = regnet.Architecture((16, 32, 64, 128), (1, 1, 3, 2), group_width=8, stem_width=16)
SMALL_TIMM = RegNetCfg(
    w0=16, wa=16, wm=2, depth=7, group_size=8, se_ratio=0.25, stem_width=16, linear_out=False
)
TIMM_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of our kernels in timm's order: OIHW from HWIO, (out, in) from (in, out).
TIMM_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


def timm_small():
    return TimmRegNet(SMALL_TIMM, num_classes=10)


def builder(name):
    if name == "small":
        return partial(_build, partial(regnet.RegNet, SMALL), num_classes=10, image_size=(64, 64))
    entry = regnet.MODELS[name]
    options = {"num_classes": entry["num_classes"], "image_size": entry["image_size"]}
    return partial(_build, entry["build"], **options)


def _build(constructor, rngs, **options):
    return constructor(rngs=rngs, **options)


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


@pytest.mark.parametrize("name", PUBLISHED)
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
    assert count_parameters(params) == expected == regnet.MODELS[name]["parameters"]
    assert regnet.MODELS[name]["image_size"] == (224, 224)


@pytest.mark.parametrize(("name", "size"), [("small", 64), ("small", 75), ("regnety_040", 96)])
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
    # float32 rounding, through the means and variances of 24 layers, against float64.
    assert max(jax.tree.leaves(jax.tree.map(error, grads, expected))) < 1e-4
