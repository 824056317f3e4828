"""Directories and files that were written, through transformers' pipeline and timm's transforms."""

import json
import sys

import numpy as np
import pytest
import timm
import timm.data
import torch
import transformers
from PIL import Image

import deit_jax
from deit_jax.cli.main import main
from deit_jax.preprocessing import EvalView, Preprocessing
from deit_jax.runs.open_weights import read_weights
from deit_jax.weights.save import write_weights
from tests.weights.small_models import DISTILLED, PLAIN

NAMES = tuple(f"kind {letter}" for letter in "abcdefghij")
OWN = Preprocessing(EvalView.keeping(0.8), (0.5, 0.4, 0.3), (0.5, 0.5, 0.25), assumed=())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of many proportions, so that margins are odd in all ways."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 57), (61, 34), (33, 33), (15, 24), (50, 51)]):
        noise = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def model():
    return deit_jax.create_model(DISTILLED, num_classes=10, seed=3)


def predicted(weights, photos, capsys):
    """By file and class name, what `predict` says."""
    assert main(["predict", "--weights", str(weights), str(photos), "--json", "--top=10"]) == 0
    found = json.loads(capsys.readouterr().out)["images"]
    heads = [image["heads"].get("fused", image["heads"]["class"]) for image in found]
    return {
        image["file"]: {guess["name"]: guess["probability"] for guess in head}
        for image, head in zip(found, heads, strict=True)
    }


@pytest.mark.parametrize(
    "view",
    [
        EvalView.keeping(0.8),
        EvalView.keeping(1.0, interpolation="bilinear"),
        EvalView.keeping(1.0, fit="exact", interpolation="lanczos"),
        EvalView.keeping(0.7, fit="exact"),
    ],
)
def test_a_pipeline_of_transformers_says_what_predict_says(model, view, photos, tmp_path, capsys):
    shown = Preprocessing(view, OWN.mean, OWN.std, assumed=())
    out = tmp_path / "out"
    files = deit_jax.save_weights(
        model, out, layout="transformers", class_names=NAMES, preprocessing=shown
    )
    assert [file.name for file in files] == [
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
    ]
    ours = predicted(out, photos, capsys)
    names = [list(guesses) for guesses in ours.values()]
    assert set(names[0]) == set(NAMES)
    for backend, tolerance in (("pil", 1e-6), (None, 2e-4)):
        # PIL's pixels are ours. torchvision rounds one level in two hundred otherwise, by one
        # level of 256 (two where it overshoots): that moves these logits by 1e-4.
        processor = transformers.AutoImageProcessor.from_pretrained(out, backend=backend)
        pipeline = transformers.pipeline(
            "image-classification", model=str(out), image_processor=processor
        )
        for file, guesses in ours.items():
            theirs = {one["label"]: one["score"] for one in pipeline(file, top_k=10)}
            assert theirs == pytest.approx(guesses, abs=tolerance)


def test_what_transformers_cannot_say_is_said(tmp_path, caplog):
    wide = deit_jax.create_model(PLAIN, image_size=(16, 24))
    deit_jax.save_weights(wide, tmp_path / "wide", layout="transformers")
    assert not (tmp_path / "wide" / "preprocessor_config.json").exists()
    assert "no image processor that" in caplog.text


def test_timm_is_told_the_same(model, tmp_path):
    processor = {"image_processor_type": "DeiTImageProcessor", "size": 19, "crop_size": 16}
    out = tmp_path / "hub"
    deit_jax.save_weights(model, out, layout="transformers", class_names=NAMES)
    (out / "preprocessor_config.json").write_text(json.dumps(processor))
    write_weights(read_weights(out), tmp_path / "timm", layout="timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    options = timm.data.resolve_model_data_config(theirs)
    assert options["mean"] == [0.5] * 3 and options["crop_mode"] == "squash"
    transform = timm.data.create_transform(**options)
    assert transform.transforms[0].size == (19, 19)
    assert tuple(theirs.pretrained_cfg["label_names"]) == NAMES


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("w.safetensors", "timm"),
        ("w.safetensors", "transformers"),
        ("w.pth", "timm"),
        ("w.pth", "official"),
        ("w.pth", "transformers"),
        ("w", "timm"),
        ("w", "transformers"),
    ],
)
def test_names_and_preprocessing_come_back_from_every_layout(model, file, layout, tmp_path):
    deit_jax.save_weights(
        model, tmp_path / file, layout=layout, class_names=NAMES, preprocessing=OWN
    )
    facts = read_weights(tmp_path / file).facts
    assert facts.labels == NAMES
    shown = facts.preprocessing
    assert (shown.mean, shown.std, shown.assumed) == (OWN.mean, OWN.std, ())
    assert shown.view.sides((16, 16)) == (20, 20)
    # And on into any other.
    write_weights(read_weights(tmp_path / file), tmp_path / "on.safetensors")
    assert read_weights(tmp_path / "on.safetensors").facts.labels == NAMES


def test_a_loaded_model_knows_them_when_it_is_saved(model, tmp_path):
    deit_jax.save_weights(model, tmp_path / "w", class_names=NAMES, preprocessing=OWN)
    again = deit_jax.create_model(DISTILLED, weights=tmp_path / "w")
    deit_jax.save_weights(again, tmp_path / "again", layout="transformers")
    facts = read_weights(tmp_path / "again").facts
    assert (facts.labels, facts.preprocessing.mean) == (NAMES, OWN.mean)
    # Of a head for other classes, nothing names them.
    fewer = deit_jax.create_model(DISTILLED, weights=tmp_path / "w", num_classes=3)
    deit_jax.save_weights(fewer, tmp_path / "fewer.safetensors")
    assert read_weights(tmp_path / "fewer.safetensors").facts.labels == ()


def test_texts_beside_a_file_are_of_that_file_alone(model, tmp_path):
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    written = deit_jax.save_weights(model, first, class_names=NAMES)
    assert written == [first, tmp_path / "first.pth.json"]
    torch.save({name: 2 * array for name, array in torch.load(first).items()}, second)
    second.replace(first)
    assert read_weights(first).facts.labels == ()
    with pytest.raises(FileExistsError, match=r"first\.pth"):
        deit_jax.save_weights(model, first)


def test_texts_stay_where_the_file_beside_them_cannot_be_replaced(model, tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    deit_jax.save_weights(model, path, class_names=NAMES)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        with pytest.raises(ModuleNotFoundError, match="needs PyTorch"):
            deit_jax.save_weights(model, path, overwrite=True)
    assert read_weights(path).facts.labels == NAMES
    deit_jax.save_weights(model, path, class_names=NAMES[::-1], overwrite=True)
    assert read_weights(path).facts.labels == NAMES[::-1]


def test_a_description_of_other_weights_does_not_stay(model, tmp_path):
    out = tmp_path / "out"
    deit_jax.save_weights(model, out, layout="transformers", preprocessing=OWN)
    deit_jax.save_weights(model, out, layout="timm", overwrite=True)
    assert not (out / "preprocessor_config.json").exists()
    (out / "config.json").unlink()
    (out / "model.safetensors").unlink()
    (out / "preprocessor_config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="preprocessor_config"):
        deit_jax.save_weights(model, out, layout="timm")


def test_names_must_be_as_many_as_classes(model, tmp_path):
    with pytest.raises(ValueError, match="3 class_names for 10 classes"):
        deit_jax.save_weights(model, tmp_path / "w", class_names=["a", "b", "c"])


def test_preprocessing_that_cannot_be_done_is_not_lost_in_silence(model, tmp_path):
    deit_jax.save_weights(model, tmp_path / "w", layout="transformers")
    (tmp_path / "w" / "preprocessor_config.json").write_text('{"do_pad": true, "size": 16}')
    with pytest.raises(ValueError, match="do_pad=True"):
        write_weights(read_weights(tmp_path / "w"), tmp_path / "on.safetensors")
