"""Files of training programs: prefixes, wrappers, shards, backbones without a head."""

import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import deit_jax
from deit_jax.models.functional import split
from deit_jax.runs.open_weights import read_weights
from deit_jax.trees import flatten
from deit_jax.weights.formats.any import read_file
from deit_jax.weights.load import complete_model, fit_to_itself
from deit_jax.weights.save import write_weights
from tests.weights.small_models import PLAIN, randomised, timm_model, transformers_model

STATE = timm_model().state_dict()


def prefixed(prefix, state=None):
    return {prefix + name: tensor for name, tensor in (state or STATE).items()}


LIGHTNING = {"epoch": 3, "pytorch-lightning_version": "2.2.0", "loops": {}, "callbacks": {}}
# As torchvision's training averages; `torch.optim.swa_utils.AveragedModel` names it.
AVERAGE_COUNT = {"n_averaged": torch.tensor(7)}
FILES = {
    "torch.compile in DistributedDataParallel": prefixed("module._orig_mod."),
    "the other way round": {"model": prefixed("_orig_mod.module.module.")},
    "Lightning": LIGHTNING | {"state_dict": prefixed("model.")},
    "Lightning, compiled": LIGHTNING | {"state_dict": prefixed("net._orig_mod.")},
    "Lightning with a loss": LIGHTNING
    | {"state_dict": prefixed("model.") | {"criterion.weight": torch.ones(10)}},
    "Lightning with an average": LIGHTNING
    | {"state_dict": prefixed("model.") | prefixed("ema_model.", timm_model(seed=1).state_dict())},
    "torchvision's average": prefixed("module.") | AVERAGE_COUNT,
    "a script's": {"model_state_dict": STATE, "optimizer_state_dict": {}, "epoch": 1},
    "another script's": {"net": STATE, "acc": 90.0},
}


@pytest.mark.parametrize("kind", FILES)
def test_what_training_programs_put_around_weights(kind, tmp_path):
    torch.save(FILES[kind], tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "plain.pth")
    for path, array in flatten(read_weights(tmp_path / "plain.pth").params).items():
        np.testing.assert_array_equal(flatten(weights.params)[path], array)
    beside = {row.name for row in weights.left_over}
    assert ("criterion.weight" in beside) == ("loss" in kind)
    assert ("n_averaged" in beside) == ("torchvision" in kind)
    report = fit_to_itself(weights).report
    assert report.count("used") == len(STATE) and report.count("left over") == len(beside)


def test_the_average_of_torchvision_s_training(tmp_path):
    average = prefixed("module.", timm_model(seed=1).state_dict()) | AVERAGE_COUNT
    torch.save({"model": STATE, "model_ema": average, "epoch": 1}, tmp_path / "a.pth")
    found = read_weights(tmp_path / "a.pth", which="ema").params["cls_token"]
    np.testing.assert_array_equal(found, timm_model(seed=1).state_dict()["cls_token"].numpy())


def test_several_networks_are_not_guessed_among(tmp_path):
    both = prefixed("student.") | prefixed("teacher.")
    torch.save({"state_dict": both}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"several networks, under 'student.', 'teacher.'; save"):
        read_weights(tmp_path / "a.pth")


def backbones():
    without = {name: t for name, t in STATE.items() if not name.startswith("head")}
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 64)}
    vit, deit = transformers.ViTModel, transformers.DeiTModel
    yield "timm's", without
    yield "of a masked auto-encoder", {"model": without | decoder}
    yield "within another network", prefixed("backbone.", without) | {"fc.weight": torch.ones(2, 2)}
    for kind, model in (("vit", vit), ("teacher", deit)):
        yield f"{model.__name__}", randomised(model(transformers_model(kind).config)).state_dict()


@pytest.mark.parametrize(
    ("kind", "content"), backbones(), ids=lambda x: x if type(x) is str else ""
)
def test_a_backbone_starts_a_model_and_classifies_nothing(kind, content, tmp_path, caplog):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    weights = read_weights(path)
    assert weights.num_classes == 0
    for use in (complete_model, fit_to_itself):
        with pytest.raises(
            ValueError, match=r"a.pth has no classification head, so it is no class"
        ):
            use(weights)
    with pytest.raises(ValueError, match="has no classification head"):
        write_weights(weights, tmp_path / "b.safetensors")
    model = deit_jax.create_model(weights.model_name, num_classes=5, weights=path)
    assert "NOT loaded" in caplog.text and "head.kernel" in caplog.text
    assert "there is none in the weights" in caplog.text
    ours = flatten(split(model)[1])
    assert ours["head", "kernel"].shape == (64, 5)
    for name, array in flatten(weights.params).items():
        np.testing.assert_array_equal(ours[name], array)


@pytest.fixture
def shards(tmp_path):
    theirs = transformers_model("vit")
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "cut", max_shard_size="200KB")
    assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 2
    return tmp_path / "cut"


def test_shards_are_put_together(shards):
    whole, cut = (read_file(shards.parent / name) for name in ("whole", "cut"))
    assert whole.tensors.keys() == cut.tensors.keys()
    assert all(whole.tensors[name].tobytes() == cut.tensors[name].tobytes() for name in cut.tensors)
    assert cut.config["model_type"] == "vit"
    index = shards / "model.safetensors.index.json"
    assert read_file(index).tensors.keys() == whole.tensors.keys()
    assert read_weights(shards).model_name == PLAIN


def test_shards_of_pytorch_are_put_together(tmp_path):
    names = sorted(STATE)
    places = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: STATE[name] for name in names if places[name] == file}
        torch.save(part, tmp_path / file)
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path).model_name == PLAIN


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "..", "", "C:a.bin", 3, "a.json"],
)
def test_an_index_names_files_beside_it_alone(file, shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["vit.embeddings.cls_token"] = file
    safetensors.torch.save_file({"a": torch.ones(1)}, shards.parent / "secret.safetensors")
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no file of weights beside it"):
        read_file(shards)


def test_an_index_that_does_not_fit_is_refused(shards):
    path = shards / "model.safetensors.index.json"
    text = path.read_text()
    index = json.loads(text)
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["vit.embeddings.cls_token"] = files[-1]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"does not fit to .*cls_token' is in one alone"):
        read_file(shards)
    for content in ("{}", "[]", '{"weight_map": {}}', "{", '{"weight_map": 3}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="index"):
            read_file(shards)
    path.write_text(text)
    (shards / files[0]).unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no {files[0]} beside .*copy all"):
        read_file(shards)


def test_checkpoints_without_their_run_are_told_from_weights(tmp_path):
    for name in ("5/meta", "5/params", "5/rest"):
        os.makedirs(tmp_path / "checkpoints" / name)
    for path, what in (("checkpoints", "checkpoints"), ("checkpoints/5", "one checkpoint")):
        with pytest.raises(ValueError, match=f"holds {what} of a run .* without the run's config"):
            read_weights(tmp_path / path)
