"""Networks that share tensors: which one is meant, and under which name it is written."""

import argparse
import json
from collections import defaultdict

import numpy as np
import pytest
import timm
import torch

import deit_jax
from deit_jax.models.registry import find_model, list_models, model_spec
from deit_jax.runs.open_weights import read_weights
from deit_jax.weights.description.config import named_transformer
from deit_jax.weights.load import complete_model
from tests.weights.description.described import convnet_file, relative
from tests.weights.small_models import images, randomised, timm_model, torch_logits


def test_a_convnet_without_batch_norm_is_not_taken_for_one_with(tmp_path):
    path = convnet_file(tmp_path / "a.pth", "resnet50_gn")
    with pytest.raises(
        ValueError, match=r"a.pth: it has the kernels of resnet50 and no statistics"
    ):
        read_weights(path)
    path = convnet_file(tmp_path / "b.pth", "resnet50_gn", arch="resnet50_gn")
    with pytest.raises(ValueError, match=r"says that it is 'resnet50_gn', which is not computed"):
        read_weights(path)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_networks_of_the_same_tensors_are_all_known():
    """Of all of timm's, as the table says; a minute of building them without memory."""

    def key(name):
        with torch.device("meta"):
            state = timm.create_model(name).state_dict()
        return frozenset((k, tuple(v.shape)) for k, v in state.items())

    specs = [model_spec(n) for n in list_models("*resnet*") + list_models("*efficientnet*")]
    patterns = ("*resnet*", "*efficientnet*", "*resnex*")
    alike = defaultdict(set)
    for name in {n for p in patterns for n in timm.list_models(p)}:
        alike[key(name)].add(name)
    for spec in specs:
        assert alike[key(spec.name)] == {spec.name, *spec.same_tensors}


def test_a_model_is_written_under_its_own_name(tmp_path):
    """timm's model of the directory is TensorFlow's, as ours is, and its logits are that one's.

    (That ours computes what timm's of that name does, test_convnets_parity.py shows.)
    """
    theirs = {
        n: timm.create_model(n, num_classes=3) for n in ("tf_efficientnet_b0", "efficientnet_b0")
    }
    state = randomised(theirs["tf_efficientnet_b0"]).state_dict()
    theirs["efficientnet_b0"].load_state_dict(state)
    torch.save(state, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth", model="tf_efficientnet_b0")
    model = complete_model(weights)[0].merge(weights.params, weights.batch_stats)
    deit_jax.save_weights(model, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architecture"] == "tf_efficientnet_b0"
    again = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
    pixels = images((64, 64), batch=1)
    expected = {name: torch_logits(model.eval(), pixels) for name, model in theirs.items()}
    np.testing.assert_array_equal(torch_logits(again, pixels), expected["tf_efficientnet_b0"])
    assert relative(expected["efficientnet_b0"], expected["tf_efficientnet_b0"]) > 1e-4
    assert read_weights(tmp_path / "b").model_name == "tf_efficientnet_b0"
    # The other numerics are another network, whose model does not take the weights.
    other = complete_model(read_weights(tmp_path / "a.pth"))[0].merge(
        weights.params, weights.batch_stats
    )
    with pytest.raises(ValueError, match="computes something else from the same tensors"):
        deit_jax.load_weights(other, tmp_path / "b")


def test_names_of_the_same_networks():
    assert named_transformer("vit_base_patch16_224_in21k") == (12, False)
    assert named_transformer("deit_large_patch16_LS") == (16, True)
    assert named_transformer("vit_large_patch16_384") == (16, False)
    assert named_transformer("deit3_base_patch16_224_in21ft1k") == (12, True)
    others = ("vit_base_patch16_clip_224", "vit_base_patch16_224_miil", "vit_base_patch16_rope_224")
    assert [named_transformer(name) for name in others] == [None] * 3
    assert find_model("regnet_y_16gf").name == "regnety_160"
    for name in ("tv_resnet50", "gluon_resnet50_v1b", "swsl_resnet50"):
        assert find_model(name).name == "resnet50"
    # timm's own names of ours, with its heads: no table of ours has a part in them.
    for name in filter(timm.is_model, list_models("deit*")):
        with torch.device("meta"):
            theirs = timm.create_model(name, depth=1)
        deit3 = hasattr(theirs.blocks[0].ls1, "gamma")
        assert named_transformer(name) == (theirs.blocks[0].attn.num_heads, deit3)


def test_arguments_of_a_training_count(tmp_path):
    theirs = timm_model(num_heads=2)
    arguments = argparse.Namespace(model="deit_micro_patch4_16", model_kwargs={"act_layer": "relu"})
    torch.save({"state_dict": theirs.state_dict(), "args": arguments}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="the training arguments in it says act_layer='relu'"):
        read_weights(tmp_path / "a.pth")
    arguments.model_kwargs = {"num_heads": 4, "drop_rate": 0.1}
    torch.save({"state_dict": theirs.state_dict(), "args": arguments}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").num_heads == 4
