"""Networks that tensors do not tell apart: what a file's own config says is computed, or refused.

The oracle is the other project's own model. Its weights are large enough for a wrong number of
heads, activation or epsilon to show (checked here); float32 on both sides, 1e-5 of the largest
logit.
"""

import functools
import json

import jax
import numpy as np
import pytest
import timm
import torch

import deit_jax
from deit_jax.runs.open_weights import read_weights
from deit_jax.weights.description.network import Network
from deit_jax.weights.load import complete_model
from deit_jax.weights.save import write_weights
from tests.weights.description.described import (
    convnet_file,
    relative,
    timm_directory,
    transformers_directory,
)
from tests.weights.small_models import PLAIN, images, timm_model, torch_logits


@functools.partial(jax.jit, static_argnums=0)
def run(function, params, batch_stats, pixels):
    return function.merge(params, batch_stats)(pixels)


def our_logits(weights, pixels):
    with jax.default_matmul_precision("highest"):
        return np.asarray(run(*complete_model(weights), pixels))


@pytest.mark.parametrize(
    ("words", "options", "network"),
    [
        ("timm", {"num_heads": 4}, Network(PLAIN, 4)),
        ("transformers", {"num_attention_heads": 8}, Network(PLAIN, 8)),
        ("transformers", {"layer_norm_eps": 1e-2}, Network(PLAIN, 2, 1e-2)),
        ("transformers", {"layer_norm_eps": 1e-12, "num_attention_heads": 1}, None),
    ],
)
def test_heads_and_epsilon_are_those_of_the_config(words, options, network, tmp_path):
    directory = {"timm": timm_directory, "transformers": transformers_directory}[words]
    theirs = directory(tmp_path / "a", **options)
    weights = read_weights(tmp_path / "a")
    network = network or Network(PLAIN, 1, 1e-12)
    assert weights.network == network and not weights.assumed
    expected = torch_logits(theirs, images())
    assert relative(our_logits(weights, images()), expected) < 1e-5
    model = deit_jax.create_model(PLAIN, weights=tmp_path / "a")
    assert (model.num_heads, model.epsilon) == (network.num_heads, network.epsilon)
    # The same tensors with nothing beside them are another network, which the notes admit.
    (tmp_path / "a" / "config.json").unlink()
    bare = read_weights(tmp_path / "a")
    assert bare.network == Network(PLAIN, 2)
    assert "2 attention heads and the exact GELU" in " ".join(bare.notes)
    if words == "timm":
        assert relative(our_logits(bare, images()), expected) > 1e-3


@pytest.mark.parametrize("layout", ["timm", "transformers", "timm.safetensors", "timm.pth"])
def test_heads_go_to_other_layouts_and_come_back(layout, tmp_path):
    theirs = timm_directory(tmp_path / "a", num_heads=8)
    weights, path = read_weights(tmp_path / "a"), tmp_path / layout
    write_weights(weights, path, layout=layout.partition(".")[0])
    back = read_weights(path)
    assert back.network == weights.network
    expected = torch_logits(theirs, images())
    assert relative(our_logits(back, images()), expected) < 1e-5
    if layout == "timm":
        again = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        np.testing.assert_array_equal(torch_logits(again, images()), expected)
    with pytest.raises(ValueError, match=r"reference builds no .* with 8 attention heads"):
        write_weights(weights, tmp_path / "official.pth", layout="official")


def test_an_epsilon_goes_where_there_is_a_place_for_it(tmp_path):
    transformers_directory(tmp_path / "a", layer_norm_eps=1e-3)
    weights = read_weights(tmp_path / "a")
    write_weights(weights, tmp_path / "b", layout="transformers")
    write_weights(weights, tmp_path / "b.safetensors", layout="timm")
    for path in ("b", "b.safetensors"):
        assert read_weights(tmp_path / path).epsilon == 1e-3
    with pytest.raises(ValueError, match=r"no place for layer_norm_eps=0.001"):
        write_weights(weights, tmp_path / "c", layout="timm")


def test_models_of_other_heads_do_not_take_them(tmp_path):
    timm_directory(tmp_path / "a", num_heads=4)
    model = deit_jax.create_model(PLAIN)
    with pytest.raises(ValueError, match=r"4 attention heads, and the model has 2; build .*=4"):
        deit_jax.load_weights(model, tmp_path / "a")
    with pytest.raises(ValueError, match="4 attention heads, and the model has 2"):
        deit_jax.create_model(PLAIN, weights=tmp_path / "a", num_heads=2)
    deit_jax.load_weights(deit_jax.create_model(PLAIN, num_heads=4), tmp_path / "a")
    transformers_directory(tmp_path / "b", layer_norm_eps=1e-3)
    with pytest.raises(ValueError, match=r"layer_norm_eps=0.001, and the model has 1e-06"):
        deit_jax.load_weights(model, tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"act_layer": "relu"}, r"act_layer='relu', which is not computed here \('gelu' is\)"),
        ({"act_layer": "gelu_tanh"}, "act_layer='gelu_tanh'"),
        ({"global_pool": "avg", "fc_norm": False}, "global_pool='avg'"),
        ({"no_embed_class": True}, "no_embed_class=True; without LayerScale"),
        ({"pre_norm": True}, "pre_norm"),
        ({"class_token": False, "global_pool": "avg"}, "No model here has these"),
        ({"reg_tokens": 4}, "register tokens"),
        ({"qk_norm": True}, "normalised queries and keys"),
        ({"scale_attn_norm": True}, "scale_attn_norm"),
        ({"init_values": 0.1}, "no_embed_class=False; with LayerScale only no_embed_class=True"),
        ({"mlp_ratio": 2.0}, "128 features inside its MLP at a width of 64"),
        ({"qkv_bias": False}, "no bias on queries, keys and values"),
        ({"in_chans": 1}, "in_chans=1"),
        ({"epsilon": "x"}, "layer_norm_eps='x', which is no epsilon"),
        ({"epsilon": -1}, "layer_norm_eps=-1, which is no epsilon"),
        ({"num_heads": 3}, "3 attention heads, into which a width of 64"),
        ({"rotary": "yes"}, "rotary='yes', which is not known here"),
        ({"depth": 2}, "depth=2, but the tensors are of 3"),
    ],
)
def test_options_of_timm_that_are_not_computed_are_named(options, words, tmp_path):
    # The others timm would not build.
    timm_s = (
        options if options.keys().isdisjoint(("rotary", "epsilon", "num_heads", "depth")) else {}
    )
    timm_directory(tmp_path / "a", **timm_s)
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    config["model_args"] |= options
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words) as caught:
        read_weights(tmp_path / "a")
    assert str(tmp_path / "a" / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("hidden_act", "gelu_new"),
        ("hidden_act", "quick_gelu"),
        ("qkv_bias", False),
        ("num_channels", 1),
        ("model_type", "dinov2"),
        ("hidden_size", 128),
        ("num_hidden_layers", 6),
        ("intermediate_size", 128),
        ("layer_norm_eps", "small"),
        ("quantization_config", {"bits": 8}),
        ("pruned_heads", {"0": [1]}),
        ("use_swiglu", True),
    ],
)
def test_keys_of_transformers_that_are_not_computed_are_named(key, value, tmp_path):
    transformers_directory(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"custom_note": None, "finetuning_task": "x"}
    path.write_text(json.dumps(config))
    assert read_weights(tmp_path).network == Network(PLAIN, 2)
    path.write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=f"its config.json says {key}="):
        read_weights(tmp_path)


def test_what_a_transformers_config_leaves_out_has_its_defaults(tmp_path):
    transformers_directory(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["num_attention_heads"], config["layer_norm_eps"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="says 12 attention heads, into which a width of 64"):
        read_weights(tmp_path)
    path.write_text(json.dumps(config | {"num_attention_heads": 2}))
    assert read_weights(tmp_path).epsilon == 1e-12


@pytest.mark.parametrize(
    ("declared", "read_as"),
    [
        ("efficientnet_b0", "efficientnet_b0"),
        ("tf_efficientnet_b0.in1k", "tf_efficientnet_b0"),
        ("tf_efficientnet_b0_ns", "tf_efficientnet_b0"),
        ("efficientnet_blur_b0", None),
        ("resnet50", None),
        ("mine", None),
    ],
)
def test_a_declared_architecture_is_obeyed_or_refused(declared, read_as, tmp_path):
    path = convnet_file(tmp_path / "a.pth", "efficientnet_b0", arch=declared)
    if read_as:
        weights = read_weights(path)
        assert weights.model_name == read_as and not weights.assumed
    else:
        with pytest.raises(ValueError, match=f"says that it is {declared!r}, which is not comp"):
            read_weights(path)
    # A name that no network has is outweighed by what someone says, another network's is not.
    if declared == "mine":
        assert read_weights(path, model="efficientnet_b0").model_name == "efficientnet_b0"
    elif not read_as:
        with pytest.raises(ValueError, match="not computed here"):
            read_weights(path, model="efficientnet_b0")


def test_no_name_is_proposed_where_none_fits(tmp_path):
    for sizes, remedy in (
        ({}, f"; if the name is one of your own, say --model {PLAIN}"),
        ({"depth": 5}, ""),
    ):
        content = {"model": timm_model(**sizes).state_dict(), "arch": "mine"}
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="says that it is 'mine'") as caught:
            read_weights(tmp_path / "a.pth")
        assert str(caught.value).endswith(f"it would give other results{remedy}.")


def test_what_is_assumed_of_undescribed_tensors_is_said(tmp_path, caplog):
    path = convnet_file(tmp_path / "a.pth", "efficientnet_b0")
    weights = read_weights(path)
    assert weights.model_name == "efficientnet_b0"
    assert "efficientnet_blur_b0 and tf_efficientnet_b0 of timm have the same" in weights.assumed
    assert "say so with --model tf_efficientnet_b0" in weights.assumed
    said = read_weights(path, model="tf_efficientnet_b0")
    assert said.model_name == "tf_efficientnet_b0" and not said.assumed
    assert read_weights(path, like="tf_efficientnet_b0").model_name == "tf_efficientnet_b0"
    # Of ResNets there is no second one that could be named.
    path = convnet_file(tmp_path / "b.pth", "resnetaa50")
    assert read_weights(path).assumed.endswith(
        "for resnet50; of another network the results are wrong."
    )
