"""Files are whole or not there, also on a full disk, and its error names them."""

import contextlib
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from deit_jax.cli.main import main
from deit_jax.files import (
    naming,
    printable,
    remove_partials,
    require_utf8,
    write_json,
    written_whole,
)
from deit_jax.weights.formats.writing import write_pth, write_safetensors
from tests.full_disk import full_disk


def in_json(path):
    write_json(path, list(range(1000)))


def in_safetensors(path):
    write_safetensors(path, {"a": np.zeros(1000)}, overwrite=True)


def in_a_stream(path):
    with written_whole(path) as partial, open(partial, "wb") as file:
        file.write(bytes(5000))


def in_pth(path):
    pytest.importorskip("torch")
    write_pth(path, {"a": np.zeros(1000)}, overwrite=True)


@pytest.mark.parametrize("write", [in_json, in_safetensors, in_pth, in_a_stream])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "x"
    path.write_text("before")
    with full_disk(), pytest.raises(OSError) as caught:
        write(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert os.listdir(tmp_path) == ["x"]
    assert path.read_text() == "before"


def test_errors_get_the_path_they_lack_and_keep_the_one_they_have(tmp_path):
    with pytest.raises(OSError) as caught, naming(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "any words")
    assert str(caught.value) == f"[Errno 28] No space left on device: '{tmp_path}/x'"
    with pytest.raises(OSError) as caught, naming(tmp_path / "x"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"^said in words$"), naming(tmp_path / "x"):
        raise FileNotFoundError("said in words")


def test_only_what_a_killed_writer_left_is_removed(tmp_path):
    with contextlib.suppress(KeyError), written_whole(tmp_path / "x.json") as partial:
        left = tmp_path / partial.name
        raise KeyError
    assert not left.exists()
    kept = ["x.json", ".x.partial", "x.1-0123abcd.partial", ".x.json.1-0123abcd.partial.swp"]
    gone = [left.name, "config.json.tmp", "result.json.tmp", "metrics.jsonl.tmp"]
    for name in kept + gone:
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_prepared_data_on_a_full_disk(tmp_path, capsys):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "train" / name / "1.png")
    command = ["prepare", str(tmp_path / "images"), str(tmp_path / "out"), "--splits=train"]
    command += ["--workers=1"]
    with full_disk(4096):
        assert main(command) == 2
    said = capsys.readouterr().err
    path = tmp_path / "out" / "train-00000-of-00001.array_record"
    assert said == f"error: {path} cannot be written: File too large.\n"
    # What is there is the beginning of the same command, which goes on once there is room.
    assert os.listdir(tmp_path / "out") == ["plan.json"]
    assert main(command) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]["train"]


def test_paths_that_tensorstore_would_not_find_are_refused(tmp_path, monkeypatch):
    require_utf8(tmp_path / "dätä 猫 $x")
    with pytest.raises(ValueError, match=r"lie in .*/d�t, because .* whose name is UTF-8\.$"):
        require_utf8(tmp_path / "d\udce4t")
    # The same name under locales of which one cannot write it and one does so in other bytes.
    for encoding in ("ascii", "latin-1"):
        monkeypatch.setattr("sys.getfilesystemencoding", lambda encoding=encoding: encoding)
        monkeypatch.setattr("os.fsencode", lambda path, e=encoding: str(path).encode(e))
        with pytest.raises(ValueError, match=rf"dätä, .* as {encoding}: set LC_ALL=C.UTF-8 or PY"):
            require_utf8(tmp_path / "dätä")
        require_utf8(tmp_path / "data")


def test_what_is_no_utf8_can_be_shown():
    assert printable("a\udce4b") == "a\ufffdb"
    assert printable("dätä") == "dätä"
    assert printable("\ud800") == "\ufffd" * 3


def test_a_terminal_shows_any_name(tmp_path):
    code = "from deit_jax.files import *; print_any_name(); print('d\\udce4 \\u00b1')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout == b"d\\udce4 \\xb1\n", done.stderr
