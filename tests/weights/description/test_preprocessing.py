"""What files say of preprocessing, against the tensors of timm's and transformers' own programs."""

import json
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy
import timm.data
import torch
import transformers
from PIL import Image

import deit_jax
from deit_jax.augment.normalise import to_input
from deit_jax.data.images.crop import evaluation_view
from deit_jax.preprocessing import EvalView, Preprocessing
from deit_jax.weights.description.facts import Facts, facts_of_file
from deit_jax.weights.formats.any import read_file
from deit_jax.weights.reading import interpret
from tests.weights.small_models import DISTILLED, arrays, timm_model

# Wide, high, square, smaller than the network's images; odd margins of all kinds.
SHAPES = ((50, 73), (61, 34), (40, 40), (18, 25), (9, 40))
SIZE = 24


def pictures():
    generator = np.random.default_rng(0)
    for height, width in SHAPES:
        coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        yield image


def ours(directory, size=(SIZE, SIZE)):
    shown = facts_of_file(read_file(directory)).preprocessing.require()
    assert not shown.assumed
    views = [evaluation_view(np.asarray(image), size, shown.view) for image in pictures()]
    return [np.asarray(to_input(view[None], shown.mean, shown.std))[0] for view in views]


@pytest.fixture
def directory(tmp_path):
    safetensors.numpy.save_file(arrays(timm_model().state_dict()), tmp_path / "model.safetensors")
    return tmp_path


VIT = {"image_processor_type": "ViTImageProcessor", "size": SIZE}
EDGE = {"size": {"shortest_edge": 31}, "crop_size": {"height": SIZE, "width": SIZE}}


@pytest.mark.parametrize(
    "processor",
    [
        # Of most directories of ViT: mean and deviation of 0.5 by default, bilinear, squashed.
        VIT,
        {"feature_extractor_type": "ViTFeatureExtractor", "size": SIZE, "resample": 3},
        VIT | {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.1, 0.2, 0.3]},
        VIT | {"image_std": 0.25, "resample": 1, "do_center_crop": None},
        VIT | {"do_normalize": False},
        VIT | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        VIT | {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [64.0] * 3},
        VIT | {"do_resize": False, "do_center_crop": True, "crop_size": SIZE},
        VIT | {"size": {"height": 30, "width": 36}, "do_center_crop": True, "crop_size": SIZE},
        # As in the directories of DeiT's authors.
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 28, "crop_size": SIZE},
        {"image_processor_type": "DeiTImageProcessorFast", **EDGE, "resample": 0},
        {"image_processor_type": "BitImageProcessor", "size": 28, "crop_size": SIZE},
        {"image_processor_type": "CLIPImageProcessor", **EDGE, "resample": 5},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": SIZE}},
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": SIZE, "crop_pct": 0.7},
    ],
)
def test_tensors_are_those_of_transformers(directory, processor):
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(processor))
    theirs = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    for one, image in zip(ours(directory), pictures(), strict=True):
        other = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        if min(image.size) < SIZE and processor.get("do_resize") is False:
            # Where an odd pixel is missing, their two programs differ; ours is torchvision's.
            fast = transformers.AutoImageProcessor.from_pretrained(directory)
            other = fast(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        # The same levels; a few roundings of numbers up to 5 in another order. One level is 4e-3.
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=0)


def test_squares_of_at_least_384_are_squashed_for_convnext(directory):
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    facts = facts_of_file(read_file(directory))
    assert facts.preprocessing.view.resized((500, 384), (384, 384)) == (384, 384)


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.3, 0.4], "crop_pct": 1.0},
        {"crop_pct": 0.9, "interpolation": "bilinear", "test_crop_pct": 1.0},
        {"crop_mode": "squash", "interpolation": "nearest"},
        {"crop_mode": "squash", "crop_pct": 0.7, "interpolation": "lanczos"},
        {"crop_mode": "border", "crop_pct": 1.0, "mean": [0.2, 0.4, 0.6]},
        {"crop_mode": "border", "crop_pct": 0.8, "interpolation": "hamming"},
        {"crop_pct": 0.8, "input_size": [3, 24, 32], "interpolation": "box"},
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_tensors_are_those_of_timm(directory, stated, nested):
    stated = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.875, **stated}
    stated = {"input_size": [3, SIZE, SIZE]} | stated
    content = {"architecture": "vit", "num_classes": 10}
    content |= {"pretrained_cfg": stated} if nested else stated
    (directory / "config.json").write_text(json.dumps(content))
    options = timm.data.resolve_data_config(pretrained_cfg=stated)
    transform = timm.data.create_transform(**options, is_training=False)
    size = tuple(stated["input_size"][1:])
    for one, image in zip(ours(directory, size), pictures(), strict=True):
        theirs = transform(image).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(one, theirs)


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        ({"image_processor_type": "LevitImageProcessor"}, "is of LevitImageProcessor"),
        ({"size": SIZE}, "is of an unnamed processor"),
        (VIT | {"do_pad": True}, "do_pad=True"),
        (VIT | {"size": {"longest_edge": SIZE}}, "longest_edge"),
        (VIT | {"size": {"shortest_edge": SIZE}}, "does not crop"),
        (VIT | {"resample": 9}, "resample=9"),
        (VIT | {"resample": 3.0}, "resample=3.0"),
        (VIT | {"image_mean": [0.5]}, "image_mean"),
        (VIT | {"rescale_factor": 0}, "rescale_factor=0"),
        (VIT | {"do_resize": False}, "neither resizes nor crops"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_when_images_are_shown(directory, processor, reason):
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    facts = facts_of_file(read_file(directory))
    with pytest.raises(ValueError, match=reason):
        facts.preprocessing.require()
    (directory / "preprocessor_config.json").unlink()
    (directory / "config.json").write_text('{"pretrained_cfg": {"crop_mode": "tiles"}}')
    assert "crop_mode='tiles'" in facts_of_file(read_file(directory)).preprocessing.note


def test_what_nothing_says_is_assumed_and_said(directory):
    shown = facts_of_file(read_file(directory)).preprocessing
    assert shown.assumed == ("normalisation", "crop")
    assert "Nothing says" in shown.note and "0.485, 0.456, 0.406" in shown.note
    (directory / "config.json").write_text('{"pretrained_cfg": {"mean": [0, 0, 0], "std": 1}}')
    shown = facts_of_file(read_file(directory)).preprocessing
    assert shown.assumed == ("crop",) and "normalised" not in shown.note


def test_another_size_than_the_networks_is_said(directory):
    (directory / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 16}))
    (directory / "preprocessor_config.json").write_text(json.dumps({"size": SIZE}))
    facts = facts_of_file(read_file(directory))
    assert facts.image_size == (16, 16)
    assert "24x24 pixels, but the network takes 16x16" in facts.preprocessing.note


def test_the_header_of_our_files_keeps_it_all(directory):
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor"} | EDGE)
    )
    facts = facts_of_file(read_file(directory))
    tensors = arrays(timm_model().state_dict())
    safetensors.numpy.save_file(tensors, directory / "x.safetensors", facts.metadata())
    (directory / "preprocessor_config.json").unlink()
    again = facts_of_file(read_file(directory / "x.safetensors"))
    assert again.preprocessing == facts.preprocessing and again.image_size == (SIZE, SIZE)
    # What was assumed is not stated by being written down.
    assert set(Facts((16, 16)).metadata()) == {"deit_jax.image_size"}


@pytest.mark.parametrize(
    "text",
    [
        {"image_size": "16"},
        {"image_size": "-16 -16"},
        {"mean": "0.5 0.5"},
        {"crop_ratio": "1/0"},
        {"crop_ratio": " "},
        {"crop_ratio": "0.8 0.9 1.0"},
        # As a later version may say it.
        {"crop_ratio": "0.9", "fit": "stretch"},
        {"crop_ratio": "0.9", "interpolation": "sinc"},
        {"crop_ratio": "0.9", "fill": "0 0"},
        {"class_names": "[" * 100_000},
    ],
)
def test_a_header_that_cannot_be_understood_says_nothing(tmp_path, text):
    path = tmp_path / "x.safetensors"
    header = {"deit_jax.std": "0.5 0.5 0.5"} | {f"deit_jax.{key}": text[key] for key in text}
    safetensors.numpy.save_file({"a": np.ones(1)}, path, header)
    assert facts_of_file(read_file(path)) == Facts()


@pytest.mark.parametrize("size", [-16, 0, True, [-16, -16], [16], "16"])
def test_what_is_no_size_of_an_image_says_nothing(directory, size):
    (directory / "config.json").write_text(json.dumps({"image_size": size}))
    assert facts_of_file(read_file(directory)).image_size is None


def test_a_processor_that_can_be_had_outweighs_a_config_that_cannot(directory):
    (directory / "config.json").write_text('{"pretrained_cfg": {"crop_mode": "tiles"}}')
    (directory / "preprocessor_config.json").write_text(json.dumps(VIT))
    shown = facts_of_file(read_file(directory)).preprocessing.require()
    assert shown.view.interpolation == "bilinear" and shown.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "ratio"),
    [({"eval_crop_ratio": 1.0}, 1.0), ({"data_set": "IMNET"}, 0.875), ({"crop_pct": 0.9}, 0.9)],
)
def test_the_arguments_of_a_training_checkpoint(tmp_path, arguments, ratio):
    content = {"model": timm_model().state_dict(), "args": arguments | {"input_size": 16}}
    torch.save(content, tmp_path / "checkpoint.pth")
    shown = facts_of_file(read_file(tmp_path / "checkpoint.pth")).preprocessing
    assert shown.view.crop_ratio == (ratio, ratio)
    # The reference normalises with one mean for all data sets; timm's is not in its arguments.
    assert shown.assumed == (() if "data_set" in arguments else ("normalisation",))


def converted(tmp_path, **edits):
    """A directory for timm as it is written here, with a `config.json` that was edited by hand."""
    classifier = deit_jax.create_model(DISTILLED, num_classes=3, image_size=SIZE)
    shown = Preprocessing(EvalView.keeping(Fraction(3, 4)), (0.5, 0.4, 0.3), (0.5, 0.5, 0.25), ())
    deit_jax.save_weights(classifier, tmp_path / "a", class_names="pqr", preprocessing=shown)
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    for key, value in edits.items():
        place = config if key in config else config["pretrained_cfg"]
        place[key] = value
    path.write_text(json.dumps(config))
    return shown, config, facts_of_file(read_file(tmp_path / "a"))


def test_a_config_that_was_not_edited_leaves_the_header_its_exact_view(tmp_path):
    shown, _, facts = converted(tmp_path)
    assert facts.preprocessing == shown and facts.labels == ("p", "q", "r")


@pytest.mark.parametrize(
    "edits",
    [
        {"mean": [0.1, 0.2, 0.3]},
        {"std": [0.3, 0.3, 0.3]},
        {"interpolation": "bilinear"},
        {"crop_pct": 0.5},
        {"crop_mode": "squash", "crop_pct": 1.0},
    ],
    ids=str,
)
def test_what_was_edited_in_a_config_of_ours_is_followed_as_timm_does(tmp_path, edits):
    _, config, facts = converted(tmp_path, **edits)
    options = timm.data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"])
    transform = timm.data.create_transform(**options, is_training=False)
    shown = facts.preprocessing
    for image in pictures():
        view = evaluation_view(np.asarray(image), (SIZE, SIZE), shown.view)
        one = np.asarray(to_input(view[None], shown.mean, shown.std))[0]
        np.testing.assert_array_equal(one, transform(image).permute(1, 2, 0).numpy())


def test_names_that_were_edited_in_a_config_of_ours_are_the_names(tmp_path):
    *_, facts = converted(tmp_path, label_names=["eins", "zwei", "drei"])
    assert facts.labels == ("eins", "zwei", "drei")


@pytest.mark.parametrize("std", [[0, 1, 1], [-0.2, 0.2, 0.2], "half", [0.5, 0.5]], ids=str)
def test_no_deviation_is_refused_by_name(directory, std):
    (directory / "config.json").write_text(json.dumps({"pretrained_cfg": {"std": std}}))
    with pytest.raises(ValueError, match=r"config\.json says std="):
        facts_of_file(read_file(directory)).preprocessing.require()
    (directory / "config.json").unlink()
    (directory / "preprocessor_config.json").write_text(json.dumps(VIT | {"image_std": std}))
    with pytest.raises(ValueError, match="image_std="):
        facts_of_file(read_file(directory)).preprocessing.require()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "deit", "image_size": 48},
        {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, 48, 48]}},
    ],
    ids=["transformers", "timm"],
)
def test_a_config_for_images_of_another_size_is_refused(tmp_path, config):
    _, written, _ = converted(tmp_path)
    sizes = {**written["model_args"], "img_size": [48, 48]}
    network = {
        "hidden_size": sizes["embed_dim"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["num_heads"],
        "patch_size": sizes["patch_size"],
        "intermediate_size": 4 * sizes["embed_dim"],
    }
    config = config | (network if "model_type" in config else {"model_args": sizes})
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"48x48 pixels, but .* are of {SIZE}x{SIZE}"):
        interpret(read_file(tmp_path / "a"))
