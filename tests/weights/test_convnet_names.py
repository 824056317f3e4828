"""Convnets' names: whole models of timm and torchvision, and which model a file holds."""

import numpy as np
import pytest
import timm
import torch
import torchvision

from deit_jax.models.functional import abstract, count_parameters
from deit_jax.models.registry import list_models, model_builder, model_spec
from deit_jax.trees import flatten
from deit_jax.weights.convnet_names import (
    convnet_layout,
    convnet_names,
    guess_convnet,
)
from tests.models.timm_convnets import OUR_AXES, randomise

ALL = [s.name for s in map(model_spec, list_models()) if s.convnet and s.in_timm]
# Of each way of making them one, of plain EfficientNets the smallest and the largest.
EACH = [
    *("regnety_160", "regnety_080_tv", "resnet50"),
    *("efficientnet_b0", "efficientnet_b7", "tf_efficientnet_b0", "tf_efficientnet_lite0"),
]
TORCHVISION = {
    "resnet50": "resnet50",
    "regnety_080_tv": "regnet_y_8gf",
    "efficientnet_b0": "efficientnet_b0",
}


def shapes(model):
    state = model.state_dict().items()
    return {k: tuple(v.shape) for k, v in state if not k.endswith("num_batches_tracked")}


def our_shapes(name, layout):
    _, params, stats = abstract(model_builder(name))
    assert count_parameters(params) == model_spec(name).parameters
    leaves = flatten(params) | flatten(stats)
    names = convnet_names(name, list(leaves), layout)
    return {
        names[path]: tuple(np.array(leaf.shape)[np.argsort(OUR_AXES[leaf.ndim])])
        for path, leaf in leaves.items()
    }


@pytest.mark.parametrize(
    "name", [n if n in EACH else pytest.param(n, marks=pytest.mark.full) for n in ALL]
)
def test_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        reference = shapes(timm.create_model(name))
    assert our_shapes(name, "timm") == reference
    # The numerics of tf_ models cannot be seen in shapes: the first that is registered is named.
    assert guess_convnet(reference) in (name, *model_spec(name).same_tensors)
    assert convnet_layout(reference) == "timm"


@pytest.mark.parametrize(("name", "theirs"), TORCHVISION.items())
def test_names_and_shapes_are_torchvisions(name, theirs):
    reference = shapes(getattr(torchvision.models, theirs)())
    assert our_shapes(name, "torchvision") == reference
    assert guess_convnet(reference) == name


def test_efficientnet_of_torchvision_computes_what_timms_does():
    torch.manual_seed(0)
    theirs = randomise(torchvision.models.efficientnet_b0(), 0).eval()
    tensors = theirs.state_dict()
    _, params, stats = abstract(model_builder("efficientnet_b0"))
    paths = list(flatten(params) | flatten(stats))
    source, target = (convnet_names("efficientnet_b0", paths, x) for x in ("torchvision", "timm"))
    same = timm.create_model("efficientnet_b0").eval()
    renamed = {target[path]: tensors[source[path]] for path in paths}
    same.load_state_dict(renamed, strict=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        # One library, so one arithmetic; epsilon and padding are what could differ.
        torch.testing.assert_close(theirs(images), same(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("other", ["resnet18", "resnext50_32x4d", "wide_resnet50_2", "resnet50d"])
def test_other_networks_are_not_taken_for_ours(other):
    with torch.device("meta"):
        assert guess_convnet(shapes(timm.create_model(other))) is None
    assert guess_convnet({"conv1.weight": (64, 3, 7, 7)}) is None


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("deit_tiny_patch16_224", "timm", "no convnet"),
        ("resnet50", "keras", "timm, torchvision"),
        ("efficientnet_b7", "torchvision", "1e-3"),
        ("efficientnet_b0", "efficientnet_pytorch", "pad as TensorFlow"),
        ("tf_efficientnet_b0", "torchvision", "symmetrically"),
    ],
)
def test_names_that_would_mislead_are_refused(name, layout, words):
    with pytest.raises(ValueError, match=words):
        convnet_names(name, [], layout)
