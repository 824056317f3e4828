"""Files of PyTorch's implementations into models of ours and back, compared by their logits."""

import argparse

import jax
import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
import transformers

import deit_jax
from deit_jax.models.functional import split
from deit_jax.runs.open_weights import read_weights
from deit_jax.trees import flatten
from deit_jax.weights import published
from deit_jax.weights.formats import any as files
from deit_jax.weights.save import write_weights
from tests.weights.compared import KINDS, LOGITS, assert_same_logits, parameters, randomise
from tests.weights.small_models import (
    DISTILLED,
    PLAIN,
    arrays,
    images,
    randomised,
    timm_model,
    torch_logits,
    transformers_model,
)


@pytest.mark.parametrize("name", [PLAIN, DISTILLED])
@pytest.mark.parametrize("kind", ["reference", "timm.pth", "timm.safetensors"])
def test_reference_and_timm_files_give_their_logits(kind, name, models, tmp_path):
    theirs = timm_model(name == DISTILLED)
    path = tmp_path / f"weights.{kind.rpartition('.')[2]}"
    if kind == "timm.safetensors":
        safetensors.numpy.save_file(arrays(theirs.state_dict()), path)
    else:
        state = theirs.state_dict()
        torch.save({"model": state} if kind == "reference" else state, path)
    report = deit_jax.load_weights(models[name], path)
    assert report.count("used") == len(report.rows)
    assert_same_logits(models[name], theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_of_transformers_gives_its_logits(kind, models, tmp_path):
    theirs = transformers_model(kind)
    # As in the published ones, which were trained with 1e-6.
    theirs.config.layer_norm_eps = 1e-12
    theirs.save_pretrained(tmp_path)
    report = deit_jax.load_weights(models[KINDS[kind]], tmp_path)
    note = "described with layer_norm_eps=1e-12; this model computes with 1e-06"
    assert note in " ".join(report.notes)
    assert_same_logits(models[KINDS[kind]], theirs)


def test_the_class_of_transformers_with_one_head_of_two(models, tmp_path):
    theirs = transformers_model("deit")
    theirs.save_pretrained(tmp_path / "theirs")
    report = deit_jax.load_weights(models[DISTILLED], tmp_path / "theirs")
    assert "head_dist.kernel" in report.warning
    ours, _ = models[DISTILLED].head_logits(images())
    np.testing.assert_allclose(ours, torch_logits(theirs, images()), atol=LOGITS, rtol=0)
    weights = read_weights(tmp_path / "theirs")
    write_weights(weights, tmp_path / "back", layout="transformers")
    again, info = transformers.DeiTForImageClassification.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values())
    assert all(torch.equal(a, again.state_dict()[n]) for n, a in theirs.state_dict().items())
    with pytest.raises(ValueError, match="no distillation head"):
        write_weights(weights, tmp_path / "timm.safetensors", layout="timm")


def test_the_averaged_weights_of_a_training_checkpoint(models, tmp_path):
    raw, average = timm_model(True, seed=1), timm_model(True, seed=2)
    checkpoint = {
        "model": raw.state_dict(),
        "model_ema": average.state_dict(),
        "optimizer": torch.optim.AdamW(raw.parameters()).state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(model=DISTILLED, input_size=16),
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    for which, theirs in (("model", raw), ("ema", average)):
        deit_jax.load_weights(models[DISTILLED], tmp_path / "checkpoint.pth", which=which)
        assert_same_logits(models[DISTILLED], theirs)
    assert read_weights(tmp_path / "checkpoint.pth").model_name == DISTILLED


@pytest.mark.parametrize("name", [PLAIN, DISTILLED])
def test_timm_builds_our_directory_and_agrees(name, models, tmp_path):
    randomise(models[name])
    files_written = deit_jax.save_weights(models[name], tmp_path / "out")
    assert [path.name for path in files_written] == ["model.safetensors", "config.json"]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert theirs.num_classes == 10
    assert_same_logits(models[name], theirs)
    state = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    timm_model(name == DISTILLED).load_state_dict(
        {key: torch.from_numpy(value) for key, value in state.items()}, strict=True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_builds_our_directory_and_agrees(kind, models, tmp_path):
    model = models[KINDS[kind]]
    randomise(model)
    deit_jax.save_weights(model, tmp_path / "out", layout="transformers")
    theirs, info = type(transformers_model(kind)).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values())  # nothing missing, unexpected or of another shape
    assert_same_logits(model, theirs.eval())


def test_images_that_are_no_square_go_to_both_and_come_back(tmp_path):
    size = (8, 24)
    model = deit_jax.create_model(DISTILLED, image_size=size)
    randomise(model)
    for layout in ("timm", "transformers"):
        deit_jax.save_weights(model, tmp_path / layout, layout=layout)
        assert read_weights(tmp_path / layout).image_size == size
    pixels = images(size)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert_same_logits(model, theirs, pixels)
    kind = transformers.DeiTForImageClassificationWithTeacher
    assert_same_logits(model, kind.from_pretrained(tmp_path / "transformers").eval(), pixels)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
@pytest.mark.parametrize("layout", ["official", "timm", "transformers"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_round_trips_keep_every_bit(dtype, layout, suffix, models, tmp_path):
    if layout == "official" and not suffix:
        pytest.skip("the reference has no directories")
    model = models[DISTILLED]
    randomise(model)
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    deit_jax.save_weights(model, first, layout=layout, dtype=dtype)
    weights = read_weights(first)
    assert weights.model_name == DISTILLED
    for path, array in parameters(model).items():
        stored = flatten(weights.params)[path]
        assert stored.dtype == dtype
        assert stored.tobytes() == array.astype(stored.dtype).tobytes()
    # Into the float32 model and out again: the file holds the same bytes.
    deit_jax.load_weights(model, first)
    deit_jax.save_weights(model, second, layout=layout, dtype=dtype)
    one, other = (files.read_file(path).tensors for path in (first, second))
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_a_convnet_goes_to_timm_and_back(tmp_path):
    model = deit_jax.create_model("regnety_micro")
    randomise(model)
    deit_jax.save_weights(model, tmp_path / "a.safetensors")
    again = deit_jax.create_model("regnety_micro", seed=1, weights=tmp_path / "a.safetensors")
    before, after = split(model)[1:], split(again)[1:]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
    with pytest.raises(ValueError, match="timm has no regnety_micro"):
        deit_jax.save_weights(model, tmp_path / "directory")


@pytest.mark.full
def test_the_paper_s_teacher_goes_to_timm_strictly(tmp_path):
    theirs = randomised(timm.create_model("regnety_160", num_classes=5))
    torch.save({"model": theirs.state_dict()}, tmp_path / "a.pth")
    model = deit_jax.create_model("regnety_160", weights=tmp_path / "a.pth", image_size=64)
    assert model.num_classes == 5
    deit_jax.save_weights(model, tmp_path / "out")
    again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    state = again.state_dict()
    assert all(torch.equal(a, state[name]) for name, a in theirs.state_dict().items())


def test_a_published_file_is_verified_and_its_accuracy_told(models, tmp_path, monkeypatch):
    path = tmp_path / "renamed.pth"
    torch.save({"model": timm_model().state_dict()}, path)
    digest = files.read_file(path).sha256
    entry = published.PublishedFile(
        f"{PLAIN}-{digest[:8]}.pth", PLAIN, 72.5, 91.0, 1.25, 16, "https://example.org"
    )
    monkeypatch.setattr(published, "PUBLISHED", (entry,))
    notes = " ".join(deit_jax.load_weights(models[PLAIN], path).notes)
    assert f"Verified: this is the published {entry.file}" in notes
    assert "72.5 % top-1, 91.0 % top-5 and loss 1.25 on ImageNet at 16 pixels" in notes
    weights = read_weights(path)
    assert weights.published == entry and weights.model_name == PLAIN
