"""Files are written whole or not at all, and what is written is what other readers read."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from deit_jax.weights.formats.any import read_file
from deit_jax.weights.formats.pth import read_pth
from deit_jax.weights.formats.safetensors import SAFETENSORS_DTYPES
from deit_jax.weights.formats.writing import write_directory, write_pth, write_safetensors

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 4, 5)).astype(np.float32)
LAYOUTS = {
    "plain": KERNEL,
    "transposed": KERNEL.T,
    "permuted": KERNEL.transpose(1, 2, 0),
    "strided": KERNEL[:, ::2, ::-1],
    "expanded": np.broadcast_to(KERNEL[0, 0], (7, 5)),
    "empty": KERNEL[:0],
    "scalar": np.float32(2.5) * np.ones(()),
    "one": KERNEL[:1, :1, :1].T,
    "big-endian": KERNEL.astype(">f4"),
    "fortran": np.asfortranarray(KERNEL),
    "bfloat16": KERNEL.astype(ml_dtypes.bfloat16).T,
    "float16": KERNEL.astype(np.float16),
    "long": np.arange(-3, 3),
    "bool": KERNEL > 0,
}


def assert_equal(found, expected):
    """Against torch's tensors, through numbers that all types fit into."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert str(found[name].dtype).removeprefix("torch.") == array.dtype.newbyteorder("=").name
        assert tuple(found[name].shape) == array.shape
        np.testing.assert_array_equal(found[name].double().numpy(), array.astype(np.float64))


def test_safetensors_of_any_layout_are_read_by_torch(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, LAYOUTS, {"model": "deit", "ü": "ä\n\"'"})
    assert_equal(safetensors.torch.load_file(path), LAYOUTS)
    found = read_file(path)
    assert found.metadata == {"format": "pt", "model": "deit", "ü": "ä\n\"'"}
    assert {name: array.tobytes() for name, array in found.tensors.items()} == {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes()
        for name, array in LAYOUTS.items()
    }


def test_all_types_of_safetensors_to_the_bit(tmp_path):
    raw = np.arange(48, dtype=np.uint8)
    tensors = {
        name: (raw % 2).view(dtype) if dtype == np.bool_ else raw.view(dtype)
        for name, dtype in SAFETENSORS_DTYPES.items()
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, tensors)
    found = read_file(path).tensors
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


def test_pth_of_any_layout_is_read_by_torch(tmp_path):
    path = tmp_path / "x.pth"
    content = {"model": LAYOUTS, "epoch": 3, "list": [KERNEL, (1, "a")]}
    write_pth(path, content)
    loaded = torch.load(path, weights_only=True)
    assert_equal(loaded["model"], LAYOUTS)
    assert loaded["epoch"] == 3
    assert loaded["list"][1] == (1, "a")
    assert read_pth(path)["model"]["bfloat16"].tobytes() == LAYOUTS["bfloat16"].tobytes()


def test_equal_content_gives_equal_bytes(tmp_path):
    texts = {str(i): str(i) for i in range(20)}
    contents = set()
    for _ in range(3):
        write_safetensors(tmp_path / "x.safetensors", LAYOUTS, texts, overwrite=True)
        write_pth(tmp_path / "y.pth", LAYOUTS, overwrite=True)
        contents.add(b"".join((tmp_path / n).read_bytes() for n in ("x.safetensors", "y.pth")))
    # Not so by the library alone, which writes the texts in random order.
    assert len(contents) == 1


WRITERS = pytest.mark.parametrize("write", [write_safetensors, write_pth])


@WRITERS
def test_nothing_is_overwritten_unless_told(tmp_path, write):
    path = tmp_path / "x"
    write(path, {"a": np.ones(2)})
    with pytest.raises(FileExistsError, match="exists already"):
        write(path, {"a": np.zeros(2)})
    assert read_file(path).tensors["a"].tolist() == [1, 1]
    write(path, {"a": np.zeros(2)}, overwrite=True)
    assert read_file(path).tensors["a"].tolist() == [0, 0]
    assert os.listdir(tmp_path) == ["x"]
    # As any file that is created here, and not only for its owner.
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_directory_is_left_alone_where_a_tensor_cannot_be_written(tmp_path):
    configs = {"config.json": {"architecture": "a"}}
    write_directory(tmp_path, {"a": np.ones(2)}, {}, configs, overwrite=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="b is complex256, which a safetensors file cannot hold"):
        write_directory(tmp_path, {"b": np.ones(2, np.complex256)}, {}, configs, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_places_where_no_directory_can_be_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        write_directory(tmp_path / "none" / "x", {"a": np.ones(2)}, {}, {}, overwrite=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is a file"):
        write_directory(tmp_path / "file", {"a": np.ones(2)}, {}, {}, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@WRITERS
def test_places_where_nothing_can_be_written(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        write(tmp_path / "none" / "x", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="is a directory"):
        write(tmp_path, {"a": np.ones(2)})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="exists already"):
        write(tmp_path / "link", {"a": np.ones(2)})
    assert os.listdir(tmp_path) == ["link"]


@WRITERS
def test_what_the_format_cannot_hold(tmp_path, write):
    with pytest.raises(ValueError, match=r"a is object|no tensors of"):
        write(tmp_path / "x", {"a": np.array([None])})
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="can be named '__metadata__'"):
        write_safetensors(tmp_path / "x", {"__metadata__": np.ones(1)})
    with pytest.raises(ValueError, match="'epoch' is no text"):
        write_safetensors(tmp_path / "x", {"a": np.ones(1)}, {"epoch": 3})


@WRITERS
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, write, step):
    path = tmp_path / "x"
    write(path, {"a": np.ones(2)})
    old = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, {"a": np.zeros(2)}, overwrite=True)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_that_appears_in_the_meantime_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "x"
    sync = os.fsync

    def slow(descriptor):
        if not path.exists():
            path.write_bytes(b"of someone else")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(FileExistsError, match="exists already"):
        write_safetensors(path, {"a": np.ones(2)})
    assert path.read_bytes() == b"of someone else"
    path.unlink()

    # The same on a file system without hard links.
    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileExistsError, match="exists already"):
        write_safetensors(path, {"a": np.ones(2)})
    monkeypatch.setattr(os, "fsync", sync)
    path.unlink()
    write_safetensors(path, {"a": np.ones(2)})
    assert os.listdir(tmp_path) == ["x"]


def test_of_many_writers_one_succeeds(tmp_path):
    path = tmp_path / "x"
    outcomes = []

    def write(number):
        try:
            write_safetensors(path, {"a": np.full(1000, number)})
            outcomes.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert set(read_file(path).tensors["a"]) == set(outcomes)
    assert os.listdir(tmp_path) == ["x"]


def test_the_disk_is_told_before_the_name_is_given(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "link"):
        original = getattr(os, name)

        def note(*arguments, name=name, original=original):
            done.append(name)
            return original(*arguments)

        monkeypatch.setattr(os, name, note)
    write_safetensors(tmp_path / "x", {"a": np.ones(2)})
    # The file; its name; the directory.
    assert done == ["fsync", "link", "fsync"]


KILLED = """
import sys, itertools
import numpy as np
from deit_jax.weights.formats.writing import write_safetensors
print("ready", flush=True)
for i in itertools.count():
    write_safetensors(sys.argv[1], {"a": np.full(2**18, i)}, overwrite=True)
"""


def test_a_kill_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": np.full(2**18, -1)})
    for seed in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        # A write takes some milliseconds; most kills fall into one.
        time.sleep(0.01 + 0.0137 * seed)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        values = read_file(path).tensors["a"]
        assert len(values) == 2**18 and len(set(values.tolist())) == 1
    assert all(name.startswith(".") for name in os.listdir(tmp_path) if name != path.name)


def test_writing_pth_without_torch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deit_jax\[torch\]'"):
        write_pth(tmp_path / "x.pth", {"a": np.ones(2)})
    assert os.listdir(tmp_path) == []
