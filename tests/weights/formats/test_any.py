"""Which file is what, and which of its tensors are meant."""

import argparse
import hashlib
import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch

from deit_jax.weights.formats.any import read_file
from deit_jax.weights.formats.safetensors import SAFETENSORS_DTYPES

TENSORS = {"norm.weight": torch.arange(3.0), "head.bias": torch.ones(2, dtype=torch.bfloat16)}


def save(path, content):
    torch.save(content, path)
    return path


def assert_read(found, tensors=TENSORS):
    assert list(sorted(found.tensors)) == sorted(tensors)
    for name, tensor in tensors.items():
        array = found.tensors[name]
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.safetensors", "x"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    path = save(tmp_path / name, TENSORS)
    found = read_file(path)
    assert_read(found)
    assert (found.path, found.config, found.published) == (path, {}, None)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    safetensors.torch.save_file(TENSORS, path, {"format": "pt", "by": "me"})
    found = read_file(str(path))
    assert_read(found)
    assert found.metadata == {"format": "pt", "by": "me"}


def test_all_types_of_safetensors_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x.safetensors"
    offered = {}
    for name, dtype in SAFETENSORS_DTYPES.items():
        raw = rng.integers(0, 2 if dtype == np.bool_ else 256, (3, 5 * dtype.itemsize), np.uint8)
        kind = {"float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}.get(dtype.name)
        offered[name] = torch.from_numpy(raw).view(getattr(torch, kind or dtype.name))
    offered |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    safetensors.torch.save_file(offered, path)
    found = read_file(path).tensors
    expected = safetensors.torch.load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype == SAFETENSORS_DTYPES.get(name, np.dtype(np.float32))
        assert found[name].tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


CHECKPOINT = {
    "model": {"a": torch.ones(1)},
    "model_ema": {"a": torch.full((1,), 2.0)},
    "optimizer": {"state": {}},
    "epoch": 7,
    "args": argparse.Namespace(model="deit_tiny_patch16_224", input_size=224, resume=""),
}


def test_the_two_sets_of_weights_of_a_checkpoint(tmp_path):
    path = save(tmp_path / "x.pth", CHECKPOINT)
    for which, value in (("model", 1), ("ema", 2)):
        found = read_file(path, which)
        assert found.tensors == {"a": np.float32(value)}
        assert found.metadata == {
            "epoch": "7",
            "args.model": "deit_tiny_patch16_224",
            "args.input_size": "224",
            "args.resume": "",
        }
    names = {"model": "state_dict", "model_ema": "state_dict_ema"}
    timm = {names.get(key, key): value for key, value in CHECKPOINT.items()} | {"arch": "vit"}
    path = save(tmp_path / "timm.pth", timm)
    assert read_file(path).tensors == {"a": 1}
    assert read_file(path, "ema").tensors == {"a": 2}
    assert read_file(path).metadata["arch"] == "vit"


def test_weights_that_are_not_there(tmp_path):
    path = save(tmp_path / "x.pth", {"model": CHECKPOINT["model"], "epoch": 1})
    with pytest.raises(ValueError, match=r"no 'model_ema' or .* it holds 'model', 'epoch'"):
        read_file(path, "ema")
    path = save(tmp_path / "x.pth", TENSORS)
    with pytest.raises(ValueError, match="to take the ema weights from; it holds only tensors"):
        read_file(path, "ema")
    path = save(tmp_path / "x.pth", {"mine": TENSORS, "epoch": 1})
    with pytest.raises(ValueError, match=r"no 'model' or 'state_dict' .* it holds 'mine', 'epoch'"):
        read_file(path)
    path = save(tmp_path / "x.pth", {"model": {"a": torch.ones(1), "b": 3}})
    with pytest.raises(ValueError, match="of which 'b' is no named tensor"):
        read_file(path)
    path = save(tmp_path / "x.pth", torch.ones(1))
    with pytest.raises(ValueError, match="instead of named tensors"):
        read_file(path)
    path = save(tmp_path / "x.pth", {"model": {}})
    with pytest.raises(ValueError, match="holds no tensors"):
        read_file(path)
    safetensors.torch.save_file(TENSORS, path)
    with pytest.raises(ValueError, match="holds one set of weights only"):
        read_file(path, "ema")
    with pytest.raises(ValueError, match="no 'best' weights; choose from model, ema"):
        read_file(path, "best")


def test_prefixes_of_wrapped_modules_are_cut_off(tmp_path):
    tensors = TENSORS | {"cls_token": torch.ones(1)}
    for prefix in ("module.", "_orig_mod.", "net._orig_mod.module."):
        wrapped = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
        found = read_file(save(tmp_path / "x.pth", {"model": wrapped | {"b": torch.ones(2)}}))
        assert_read(found, tensors)
        assert found.metadata["stripped_prefix"] == prefix and found.beside == {"b": (2,)}
    # Nothing shows a network that would begin here.
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    found = read_file(save(tmp_path / "x.pth", mixed))
    assert sorted(found.tensors) == ["b", "module.a"]
    assert "stripped_prefix" not in found.metadata


def test_directories_of_hugging_face_repositories(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors or pytorch_model.bin in"):
        read_file(tmp_path)
    save(tmp_path / "pytorch_model.bin", TENSORS)
    config = {"model_type": "deit", "id2label": {"0": "tench"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_file(tmp_path)
    assert_read(found)
    assert found.config == config
    # safetensors is preferred.
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(read_file(tmp_path).tensors) == ["a"]


@pytest.mark.parametrize("config", ["", "{", "[1]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_damaged_description_is_named(tmp_path, config):
    path = save(tmp_path / "x.pth", TENSORS)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json (is damaged|does not describe)"):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no file of weights"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, content, reason):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_file(path)


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_file(tmp_path / "x.pth")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a directory"):
        read_file(tmp_path / "pipe")


def test_files_of_the_hugging_face_cache_are_checked_by_their_names(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / ("0" * 40)
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    content = safetensors.torch.save({"a": torch.ones(1)})
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert read_file(snapshot).tensors == {"a": 1}
    # safetensors has no checksum of its own; this would be read as another number.
    blob.write_bytes(content[:-1] + b"\x40")
    with pytest.raises(ValueError, match="not the one that it was downloaded with; delete"):
        read_file(snapshot)
