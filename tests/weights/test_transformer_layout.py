"""The table of names, against timm's and transformers' own."""

import jax
import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file

from deit_jax.models.functional import abstract
from deit_jax.models.registry import list_models, model_builder
from deit_jax.trees import flatten
from deit_jax.weights.convnet_names import name_own_convnet
from deit_jax.weights.identify import name_transformer, transformer_image_size
from deit_jax.weights.transformer_layout import detect_layout, from_foreign, to_foreign
from tests.weights.small_models import DISTILLED, PLAIN, arrays, timm_model, transformers_model


def random_trees(name, seed=0):
    """Parameters and statistics of a registered model, every number another."""
    _, *shapes = abstract(model_builder(name))
    generator = np.random.default_rng(seed)
    return [
        jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape).astype(np.float32), tree)
        for tree in shapes
    ]


def weightless(name):
    """The shapes of a registered model as arrays that take no memory."""
    _, *shapes = abstract(model_builder(name))
    return [jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), t) for t in shapes]


def equal(one, other):
    one, other = flatten(one), flatten(other)
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_base_distilled_patch16_384"])
def test_published_names_and_shapes_are_timms(name):
    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in timm.create_model(name).state_dict().items()}
    for layout in ("timm", "official"):
        ours = to_foreign(*weightless(name), layout)
        assert {name: array.shape for name, array in ours.items()} == theirs


@pytest.mark.parametrize("kind", ["teacher", "vit"])
def test_names_are_those_in_files_of_transformers(kind, tmp_path):
    model = transformers_model(kind)
    model.save_pretrained(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    name = DISTILLED if kind == "teacher" else PLAIN
    params, batch_stats = random_trees(name)
    ours = to_foreign(params, batch_stats, "transformers")
    assert {n: a.shape for n, a in ours.items()} == {n: a.shape for n, a in theirs.items()}
    # From version 5 on the names in memory are others; the arrays are the same.
    memory = arrays(model.state_dict())
    assert memory.keys() != theirs.keys()
    trees = [from_foreign(tensors, "transformers") for tensors in (theirs, memory)]
    assert equal(trees[0][0], trees[1][0]) and trees[0][2] == trees[1][2] == []


@pytest.mark.parametrize("layout", ["timm", "official", "transformers"])
@pytest.mark.parametrize("name", [PLAIN, DISTILLED])
def test_there_and_back_is_the_same_tree(name, layout):
    params, batch_stats = random_trees(name)
    tensors = to_foreign(params, batch_stats, layout)
    assert detect_layout(tensors) == ("transformers" if layout == "transformers" else "timm")
    assert all(array.flags.c_contiguous for array in tensors.values())
    back, statistics, left_over = from_foreign(tensors, detect_layout(tensors))
    assert equal(back, params) and statistics == {} and left_over == []


def test_query_key_and_value_are_the_thirds_of_qkv():
    tensors = arrays(timm_model().state_dict())
    qkv = tensors["blocks.2.attn.qkv.weight"]
    params, *_ = from_foreign(tensors, "timm")
    split = to_foreign(params, {}, "transformers")
    for number, part in enumerate(("query", "key", "value")):
        name = f"vit.encoder.layer.2.attention.attention.{part}.weight"
        np.testing.assert_array_equal(split[name], qkv[64 * number : 64 * (number + 1)])


def test_a_convnet_there_and_back():
    params, batch_stats = random_trees("regnety_micro")
    tensors = to_foreign(params, batch_stats, "timm", "regnety_micro")
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counters) == len(flatten(batch_stats)) / 2
    paths = list(flatten(params) | flatten(batch_stats))
    back = from_foreign(tensors, "timm", "regnety_micro", paths)
    assert equal(back[0], params) and equal(back[1], batch_stats) and back[2] == counters
    assert name_own_convnet(params) == "regnety_micro"


def test_one_head_alone_is_called_classifier():
    theirs = arrays(transformers_model("deit").state_dict())
    params, _, left_over = from_foreign(theirs, "transformers")
    assert "dist_token" in params and "head_dist" not in params and left_over == []
    np.testing.assert_array_equal(params["head"]["kernel"], theirs["classifier.weight"].T)
    assert "classifier.weight" in to_foreign(params, {}, "transformers")


def test_tensors_without_a_place_are_an_error_unless_they_are_known_to_have_no_part():
    tensors = arrays(transformers_model("teacher").state_dict())
    extra = {
        "deit.embeddings.mask_token": np.zeros((1, 1, 64)),
        "deit.pooler.dense.bias": np.ones(64),
    }
    assert from_foreign(tensors | extra, "transformers")[2] == list(extra)
    for name, words in (
        ("blocks.0.attn.mine.weight", r"1 tensors .* blocks.0.attn.mine.weight"),
        ("blocks.0.attn.q_norm.weight", r"normalised queries and keys \(qk_norm\)"),
    ):
        with pytest.raises(ValueError, match=words):
            from_foreign(arrays(timm_model().state_dict()) | {name: np.ones(32)}, "timm")


def test_layouts_that_do_not_fit_are_refused():
    params, batch_stats = weightless("regnety_micro")
    with pytest.raises(ValueError, match="regnety_micro is a convnet; choose timm"):
        to_foreign(params, batch_stats, "transformers", "regnety_micro")
    with pytest.raises(ValueError, match="choose one of official, timm, transformers"):
        to_foreign(*weightless(PLAIN), "keras")


@pytest.mark.parametrize("name", list_models("deit*"))
def test_every_transformer_is_recognised_by_its_shapes(name):
    params, _ = weightless(name)
    size = transformer_image_size(params)
    assert name_transformer(params, size) == name
    assert name_transformer(params, size, "another_projects_name") == name


def test_an_image_that_is_no_square_has_to_be_said():
    params, _ = weightless("deit_tiny_patch16_224")
    params["pos_embed"] = np.zeros((1, 1 + 12 * 16, 192))
    assert transformer_image_size(params, (192, 256)) == (192, 256)
    with pytest.raises(ValueError, match="192 patches of 16 pixels, which are no square"):
        transformer_image_size(params, (224, 224))
