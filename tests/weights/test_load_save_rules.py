"""What loading and saving refuse, announce and take along."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import deit_jax
from deit_jax.runs.open_weights import read_weights
from deit_jax.weights.load import fit_to_itself
from deit_jax.weights.save import write_weights
from tests.weights.compared import assert_same_logits, parameters, randomise
from tests.weights.small_models import DISTILLED, PLAIN, arrays, images, timm_model


def test_create_model_takes_the_classes_of_the_file_unless_told(tmp_path, caplog):
    theirs = timm_model(classes=7)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    model = deit_jax.create_model(PLAIN, weights=tmp_path / "a.pth")
    assert model.num_classes == 7
    assert_same_logits(model, theirs)
    assert "NOT loaded" not in caplog.text
    fresh = deit_jax.create_model(PLAIN, num_classes=3, seed=5)
    model = deit_jax.create_model(PLAIN, num_classes=3, seed=5, weights=tmp_path / "a.pth")
    assert "NOT loaded" in caplog.text and "7 classes in the weights, 3 in the model" in caplog.text
    ours, before = parameters(model), parameters(fresh)
    np.testing.assert_array_equal(ours["head", "kernel"], before["head", "kernel"])
    assert not np.array_equal(ours["cls_token",], before["cls_token",])


def test_a_load_that_fails_changes_nothing(models, tmp_path):
    state = timm_model(depth=2).state_dict()
    torch.save(state, tmp_path / "shallow.pth")
    before = parameters(models[PLAIN])
    with pytest.raises(ValueError, match=r"shallow.pth do not fit .* blocks.2.\S+ is missing"):
        deit_jax.load_weights(models[PLAIN], tmp_path / "shallow.pth")
    after = parameters(models[PLAIN])
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_what_is_no_model_of_ours_is_refused(tmp_path):
    def attempt(tensors, match):
        safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=match):
            read_weights(tmp_path / "a.safetensors")

    attempt({"encoder.weight": np.ones((3, 2))}, r"the first is encoder.weight \(3, 2\)")
    state = arrays(timm_model().state_dict())
    attempt({n: a for n, a in state.items() if n != "pos_embed"}, "pos_embed is missing")
    for name, shape, match in (
        ("patch_embed.proj.weight", (64, 48), r"kernel has the shape \(48, 64\), .* not 4 dim"),
        ("patch_embed.proj.weight", (64, 3, 2, 4, 4), r"not 4 dimensions"),
        ("pos_embed", (17, 64), "pos_embed .* not 3 dimensions"),
        ("pos_embed", (1, 1, 64), "1 position embeddings are for 0 patches"),
        ("blocks.0.mlp.fc1.weight", (64,), "not 2 dimensions"),
    ):
        attempt(state | {name: np.ones(shape, np.float32)}, f"a.safetensors: .*{match}")
    unknown = {f"blocks.0.x.{number}": np.ones(2) for number in range(40)}
    attempt(state | unknown, "40 tensors that DeiT does not have, such as blocks.0.x.0 ")
    safetensors.numpy.save_file(
        {n: a for n, a in state.items() if n != "norm.bias"}, tmp_path / "a.safetensors"
    )
    with pytest.raises(ValueError, match=r"norm.bias is missing"):
        fit_to_itself(read_weights(tmp_path / "a.safetensors"))
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"holds {PLAIN}, not {DISTILLED}"):
        read_weights(tmp_path / "a.safetensors", model=DISTILLED)
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "no_such.pth")


def test_nothing_is_overwritten_unless_told(models, tmp_path):
    for name in ("a.safetensors", "directory"):
        deit_jax.save_weights(models[PLAIN], tmp_path / name)
        with pytest.raises(FileExistsError, match="exists already"):
            deit_jax.save_weights(models[PLAIN], tmp_path / name)
        deit_jax.save_weights(models[PLAIN], tmp_path / name, overwrite=True, dtype="float16")
    assert read_weights(tmp_path / "directory").params["cls_token"].dtype == np.float16
    with pytest.raises(ValueError, match="unknown kind"):
        deit_jax.save_weights(models[PLAIN], tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="choose one of float32, bfloat16, float16"):
        deit_jax.save_weights(models[PLAIN], tmp_path / "b.pth", dtype="int8")
    with pytest.raises(ValueError, match="no directories"):
        deit_jax.save_weights(models[PLAIN], tmp_path / "official", layout="official")


def test_values_too_large_for_a_type_are_not_made_infinite(models, tmp_path):
    randomise(models[PLAIN])
    models[PLAIN].norm.bias[...] = models[PLAIN].norm.bias[...].at[3].set(1e6)
    with pytest.raises(ValueError, match=r"norm.bias holds values too large for float16"):
        deit_jax.save_weights(models[PLAIN], tmp_path / "a.safetensors", dtype="float16")
    # Nor where something else was no number before.
    models[PLAIN].norm.bias[...] = models[PLAIN].norm.bias[...].at[4].set(np.nan)
    with pytest.raises(ValueError, match=r"norm.bias holds values too large for float16"):
        deit_jax.save_weights(models[PLAIN], tmp_path / "a.safetensors", dtype="float16")
    assert not (tmp_path / "a.safetensors").exists()
    models[PLAIN].norm.bias[...] = models[PLAIN].norm.bias[...].at[3].set(1)
    deit_jax.save_weights(models[PLAIN], tmp_path / "a.safetensors", dtype="float16")


def test_what_was_assumed_is_said_once(tmp_path):
    torch.save(timm_model().state_dict(), tmp_path / "a.pth")
    notes = deit_jax.load_model(tmp_path / "a.pth").notes
    assert "assumed" in " ".join(notes) and len({*notes}) == len(notes)


def test_names_of_classes_travel(models, tmp_path):
    deit_jax.save_weights(models[PLAIN], tmp_path / "a", layout="transformers")
    assert read_weights(tmp_path / "a").facts.labels == ()
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    names = [f"digit {index}" for index in range(10)]
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    for layout in ("timm", "transformers"):
        write_weights(read_weights(tmp_path / "a"), tmp_path / layout, layout=layout)
        assert read_weights(tmp_path / layout).facts.labels == tuple(names)


def test_heads_that_are_not_loaded_are_announced(tmp_path, models, caplog):
    deit_jax.save_weights(models[DISTILLED], tmp_path / "ten.safetensors")
    seven = deit_jax.create_model(DISTILLED, num_classes=7)
    before = parameters(seven)["head", "kernel"]
    with caplog.at_level("WARNING", logger="deit_jax"):
        deit_jax.load_weights(seven, tmp_path / "ten.safetensors")
    assert "NOT loaded" in caplog.text and "head.kernel" in caplog.text
    np.testing.assert_array_equal(parameters(seven)["head", "kernel"], before)


@pytest.mark.parametrize("asked", [None, 24])
def test_the_size_of_weights_is_the_default(asked, tmp_path):
    theirs = timm_model(image_size=(32, 24))
    torch.save({"model": theirs.state_dict(), "deit_jax.image_size": "32 24"}, tmp_path / "w.pth")
    options = {"image_size": asked} if asked else {}
    model = deit_jax.create_model(PLAIN, weights=tmp_path / "w.pth", **options)
    assert model.image_size == ((24, 24) if asked else (32, 24))
    if not asked:
        assert_same_logits(model, theirs, images((32, 24)))


def test_paths_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = deit_jax.create_model("deit_micro_patch4_16", num_classes=2)
    assert deit_jax.save_weights(model, "~/w.safetensors") == [tmp_path / "w.safetensors"]
    deit_jax.load_weights(model, "~/w.safetensors")
    again = deit_jax.create_model("deit_micro_patch4_16", weights="~/w.safetensors")
    assert again.num_classes == 2
