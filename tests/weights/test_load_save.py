"""Files of PyTorch's implementations into models of ours and back, compared by their logits."""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
import transformers
from flax import nnx

import deit_jax
from deit_jax.models.functional import split
from deit_jax.runs.open_weights import read_weights
from deit_jax.trees import flatten
from deit_jax.weights import published
from deit_jax.weights.formats import any as files
from deit_jax.weights.load import fit_to_itself
from deit_jax.weights.save import write_weights
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

# Logits are about 1; both sides compute in float32 and add in another order.
LOGITS = 1e-5
KINDS = {"teacher": DISTILLED, "vit": PLAIN}


@pytest.fixture(scope="module")
def models():
    """One model of each kind; tests load into it what they need."""
    return {name: deit_jax.create_model(name) for name in (PLAIN, DISTILLED)}


def assert_same_logits(model, theirs, pixels=None):
    pixels = images() if pixels is None else pixels
    ours = np.asarray(jax.jit(lambda x: model(x))(pixels))
    np.testing.assert_allclose(ours, torch_logits(theirs, pixels), atol=LOGITS, rtol=0)


def parameters(model):
    return {path: np.asarray(array) for path, array in flatten(split(model)[1]).items()}


def randomise(model, seed=0):
    generator = np.random.default_rng(seed)
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    fresh = jax.tree.map(lambda a: jnp.float32(0.1 * generator.standard_normal(a.shape)), state)
    nnx.update(model, fresh)


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
        f"{PLAIN}-{digest[:8]}.pth", PLAIN, 72.5, 91.0, 1.25, 16, 18, "https://example.org"
    )
    monkeypatch.setattr(published, "PUBLISHED", (entry,))
    notes = " ".join(deit_jax.load_weights(models[PLAIN], path).notes)
    assert f"Verified: this is the published {entry.file}" in notes
    assert "72.5 % top-1, 91.0 % top-5 and loss 1.25 on ImageNet at 16 pixels" in notes
    weights = read_weights(path)
    assert weights.published == entry and weights.model_name == PLAIN


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
    assert not (tmp_path / "a.safetensors").exists()


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
