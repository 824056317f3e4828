"""The convnets beside timm's: full published architectures, random weights and statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from timm.models.efficientnet import _gen_efficientnet
from timm.models.resnet import Bottleneck, ResNet

from deit_jax.models import efficientnet, resnet
from deit_jax.models.frozen import fold_batch_norm
from deit_jax.models.registry import list_models, model_spec
from tests.models.timm_convnets import as_tree, ours, randomise, reference

ALL = [s.name for s in map(model_spec, list_models()) if s.convnet and s.in_timm]
SMALL = ["resnet50", "efficientnet_b0"]


def cases(quick):
    return [n if n in quick else pytest.param(n, marks=pytest.mark.full) for n in ALL]


def draw(size):
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    return images, torch.from_numpy(images).permute(0, 3, 1, 2).double()


def error(actual, expected):
    """Largest difference, in units of the largest expected value."""
    expected = np.asarray(expected)
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


# TensorFlow's padding is compared with the trained weights of tf_efficientnet_lite0, in
# tests/weights/test_pretrained.py; B0 has all else of tf_efficientnet_b0.
@pytest.mark.parametrize("name", cases(SMALL))
def test_inference_equals_timm_folded_and_not(name):
    theirs = reference(name)
    function, params, stats = ours(name, theirs.state_dict())
    # An odd side, where TensorFlow's padding and PyTorch's differ from an even one's.
    images, tensor = draw(75)
    with torch.no_grad():
        expected = theirs.double()(tensor.double()).numpy()
    (logits, distill), after = jax.jit(function.head_logits)(params, stats, images)
    assert distill is None and logits.dtype == jnp.float32
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, after))
    # Float32 against float64: measured 1e-6 (ResNet-50) to 7e-6 (B7); PyTorch's float32 is as far.
    assert error(logits, expected) < 1e-5
    folded, folded_params = fold_batch_norm(function, params, stats)
    logits = jax.jit(folded.head_logits)(folded_params, {}, images)[0][0]
    assert error(logits, expected) < 1e-5


@pytest.mark.parametrize("name", cases([]))
def test_gradients_equal_timm(name):
    activation = model_spec(name).convnet.activation
    margin, ceiling = {"relu": (4.0, 0.0), "relu6": (4.0, 6.0), "silu": (0.0, 0.0)}[activation]
    theirs = reference(name, margin=margin, ceiling=ceiling)
    function, params, stats = ours(name, theirs.state_dict())
    images, tensor = draw(64)
    target = np.random.default_rng(2).normal(size=(2, 1000)).astype(np.float32)
    theirs = theirs.double()
    (theirs(tensor) * torch.from_numpy(target)).sum().backward()

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (function.head_logits(p, stats, images)[0][0] * target).sum())(
            params
        )

    expected = as_tree(name, params, {k: p.grad for k, p in theirs.named_parameters()})
    # Measured 4e-6 for ResNet-50, 6e-6 for Lite2 and 1e-5 for B0, float32 against float64.
    assert max(jax.tree.leaves(jax.tree.map(error, gradient(params), expected))) < 1e-4


@pytest.mark.full
@pytest.mark.parametrize("family", ["resnet", "efficientnet"])
def test_training_equals_torch(family):
    torch.manual_seed(0)
    if family == "resnet":
        theirs = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10)
        small = partial(resnet.ResNet, resnet.resnet_architecture((1, 2, 1, 1)))
    else:
        theirs = _gen_efficientnet("efficientnet_b0", 0.5, 0.3, num_classes=10)
        small = partial(efficientnet.EfficientNet, efficientnet.efficientnet_architecture(0.5, 0.3))
    build = partial(small, num_classes=10, image_size=(64, 64))
    name = "resnet50" if family == "resnet" else "efficientnet_b0"
    theirs = randomise(theirs, 0, margin=4.0 if family == "resnet" else 0.0).train()
    function, params, stats = ours(name, theirs.state_dict(), build=lambda rngs: build(rngs=rngs))
    rng = np.random.default_rng(1)
    images = rng.normal(size=(8, 64, 64, 3)).astype(np.float32)
    target = rng.normal(size=(8, 10)).astype(np.float32)
    theirs = theirs.double()
    outputs = theirs(torch.from_numpy(images).permute(0, 3, 1, 2).double())
    (outputs * torch.from_numpy(target)).sum().backward()

    @jax.jit
    def evaluate(params):
        def loss(params):
            (logits, _), after = function.head_logits(params, stats, images, train=True)
            return (logits * target).sum(), (logits, after)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (logits, after)), grads = evaluate(params)
    assert error(logits, outputs.detach().numpy()) < 1e-5
    expected = as_tree(name, stats, theirs.state_dict())
    assert max(jax.tree.leaves(jax.tree.map(error, after, expected))) < 1e-5
    expected = as_tree(name, params, {k: p.grad for k, p in theirs.named_parameters()})
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (grads, expected)]
    # Each array against its own largest gradient: float32 against float64.
    worst = jax.tree.map(lambda a, b: np.abs(a - b).max(), grads, expected)
    assert np.linalg.norm(flat[0] - flat[1]) < 1e-4 * np.linalg.norm(flat[1])
    assert max(jax.tree.leaves(worst)) < 1e-4 * np.abs(flat[1]).max()
