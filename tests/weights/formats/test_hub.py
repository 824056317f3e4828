"""The cache of Hugging Face, against `huggingface_hub` itself; downloads, without a network."""

import hashlib
import sys

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from deit_jax.weights.formats.any import read_file
from deit_jax.weights.formats.hub import find_in_cache, locate_weights

REPO = "facebook/deit-tiny-patch16-224"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = safetensors.torch.save({"a": torch.arange(3.0)})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, in place of that of the machine that runs the tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(cache, commit=COMMIT, repo=REPO, name="model.safetensors"):
    """Put a repository there as `huggingface_hub` does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    digest = hashlib.sha256(CONTENT).hexdigest()
    (folder / "blobs" / digest).write_bytes(CONTENT)
    link = folder / "snapshots" / commit / name
    link.unlink(missing_ok=True)
    link.symlink_to(f"../../blobs/{digest}")
    return folder


def test_what_is_found_is_the_main_branch(cache):
    assert find_in_cache(REPO) is None
    folder = fill(cache)
    found = find_in_cache(REPO)
    assert found == folder / "snapshots" / COMMIT
    assert locate_weights(REPO) == found
    np.testing.assert_array_equal(read_file(locate_weights(REPO)).tensors["a"], [0, 1, 2])
    # A newer commit becomes the main branch; the older snapshot remains.
    newer = "f" * 40
    fill(cache, newer)
    assert find_in_cache(REPO).name == newer


def test_snapshots_without_weights_are_none(cache):
    folder = fill(cache, name="config.json")
    assert find_in_cache(REPO) is None
    fill(cache, name="pytorch_model.bin")
    assert find_in_cache(REPO) is not None
    for blob in (folder / "blobs").iterdir():
        blob.unlink()
    assert find_in_cache(REPO) is None


@pytest.mark.parametrize("reference", ["", "main", "../../../secret", "0" * 39, "\xff", "G" * 40])
def test_damaged_references_are_none(cache, reference):
    folder = fill(cache)
    (cache.parent / "secret").mkdir()
    (cache.parent / "secret" / "model.safetensors").write_bytes(CONTENT)
    (folder / "refs" / "main").write_text(reference, encoding="latin-1")
    assert find_in_cache(REPO) is None


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/a/b", "a/b/c", "a", "", "a b/c", "a/b\n", ".a/b"]
)
def test_names_that_are_no_repositories(cache, name):
    assert find_in_cache(name) is None
    with pytest.raises(FileNotFoundError, match="There is no file"):
        locate_weights(name or "nothing", download=True)


@pytest.mark.parametrize("name", ["", "weights/", "../"])
def test_where_published_files_are_is_said(name):
    file = f"{name}deit_small_patch16_224-cd65a155.pth"
    with pytest.raises(FileNotFoundError, match=r"published at https://\S+/deit_small\S+\.pth\.$"):
        locate_weights(file)


def test_paths_come_first(cache, tmp_path, monkeypatch):
    fill(cache)
    monkeypatch.chdir(tmp_path)
    assert locate_weights(REPO) == find_in_cache(REPO)
    (tmp_path / REPO).mkdir(parents=True)
    assert str(locate_weights(REPO)) == REPO


def test_nothing_is_downloaded_unless_told(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(FileNotFoundError, match=r"in .*cache; correct the name, or fetch") as error:
        locate_weights(REPO)
    assert str(cache) in str(error.value)
    fill(cache)
    assert locate_weights(REPO, download=True) == find_in_cache(REPO)


@pytest.mark.parametrize("name", ["own/small.pth", "runs/smal"])
def test_a_mistyped_path_is_no_repository(cache, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"^There is no file {name}\.$"):
        locate_weights(name)


def test_the_library_is_named_where_it_is_missing(cache, monkeypatch):
    fill(cache)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert find_in_cache(REPO) is None
    install = r"huggingface_hub: install it with `pip install 'deit_jax\[hub\]'`"
    with pytest.raises(
        FileNotFoundError, match=f"There is no file {REPO}; a Hugging .* needs {install}"
    ):
        locate_weights(REPO)
    with pytest.raises(ModuleNotFoundError, match=f"Downloading {REPO} needs {install}"):
        locate_weights(REPO, download=True)


def test_a_download(cache, monkeypatch):
    asked = []

    def download(repo_id, filename):
        asked.append(filename)
        if filename == "model.safetensors":
            raise huggingface_hub.errors.EntryNotFoundError("404")
        folder = fill(cache, repo=repo_id, name=filename)
        return str(folder / "snapshots" / COMMIT / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = locate_weights(REPO, download=True)
    assert found == find_in_cache(REPO)
    assert asked == [
        "model.safetensors",
        "pytorch_model.bin",
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ]


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("no network allowed\nmore"),
        LocalEntryNotFoundError("no answer"),
        ConnectionError("connection refused."),
        huggingface_hub.errors.HFValidationError("bad name"),
    ],
)
def test_downloads_that_fail_say_why(cache, monkeypatch, error):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(OSError, match=f"^{REPO} could not be downloaded: [^\n]*[^.]\\.$"):
        locate_weights(REPO, download=True)


def test_a_repository_without_weights(cache, monkeypatch):
    def download(*_, **__):
        raise huggingface_hub.errors.EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors or pytorch_model.bin"):
        locate_weights(REPO, download=True)


def test_the_library_itself_without_a_network(cache, monkeypatch):
    # Whatever it raises when it may not or cannot ask is one sentence. Nothing listens there.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="could not be downloaded") as error:
        locate_weights(REPO, download=True)
    assert "\n" not in str(error.value)
