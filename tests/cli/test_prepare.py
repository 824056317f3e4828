"""Preparing an image folder: the same records, after a kill too, and every damage named."""

import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from deit_jax.cli.main import main
from deit_jax.data.batches import DamagedRecordError, read
from deit_jax.data.options import TrainInput
from deit_jax.data.pipeline import train_batches
from deit_jax.data.sources import open_source

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 7)):
        for i in range(count):
            pixels = random.integers(0, 256, (*random.integers(20, 60, 2), 3), np.uint8)
            path = root / split / "abc"[i % 3] / f"{i:02}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels)
            # The oddities of ImageNet: a PNG by the name of a JPEG, CMYK, grey.
            if i == 4:
                image.save(path, "PNG")
            else:
                image.convert({5: "CMYK", 6: "L"}.get(i, "RGB")).save(path, "JPEG")
    return root


def command(folder, output):
    return ["prepare", str(folder), str(output), "--shard-images=8", "--workers=1"]


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "set"
    assert main(command(folder, output)) == 0
    return output


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_prepared_folder_has_the_same_records_and_stream(folder, prepared, split):
    before = open_source("folder", split, str(folder))
    after = open_source("prepared", split, str(prepared))
    after = pickle.loads(pickle.dumps(after))
    assert len(after) == len(before)
    assert after.class_names == before.class_names
    np.testing.assert_array_equal(after.labels, before.labels)
    assert [after[i] for i in range(len(after))] == [before[i] for i in range(len(before))]
    options = TrainInput(image_size=(16, 16), batch_size=7, repeats=3, threads=1)
    streams = [train_batches(source, options, num_steps=5) for source in (before, after)]
    for ours, theirs in zip(*streams, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_verify_names_damage_and_the_stream_survives_it(prepared, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(prepared, damaged)
    assert main(["prepare", str(damaged), "--verify"]) == 0
    file = damaged / "train-00001-of-00004.array_record"
    data = bytearray(file.read_bytes())
    victim = open_source("prepared", "train", str(damaged))[10]
    # In the middle, where no two of these images are alike.
    data[data.index(victim.image[-200:])] ^= 0xFF
    file.write_bytes(data)
    (damaged / "val-00000-of-00001.array_record").write_bytes(b"")
    capsys.readouterr()
    assert main(["prepare", str(damaged), "--verify"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "train-00001-of-00004.array_record has changed" in printed
    assert "train-00001-of-00004.array_record, record 2" in printed
    assert "val-00000-of-00001.array_record" in printed
    source = open_source("prepared", "train", str(damaged))
    with pytest.raises(DamagedRecordError, match="record 2"):
        read(source, 10)
    options = TrainInput(image_size=(16, 16), batch_size=30, threads=1, max_damaged=1)
    with train_batches(source, options, num_steps=1) as batches:
        next(batches)
        assert [damage.number for damage in batches.damaged] == [10]


def test_damaged_files_are_left_out_and_named(folder, tmp_path, capsys):
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    (copy / "train" / "b" / "07.jpeg").write_bytes((copy / "train/b/07.jpeg").read_bytes()[:200])
    assert main([*command(copy, tmp_path / "out"), "--short-side=16"]) == 1
    assert "train/b/07.jpeg: " in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["splits"]["train"]["images_of_each_class"] == [10, 9, 10]
    source = open_source("prepared", "train", str(tmp_path / "out"))
    assert {min(read(source, i)[0].shape[:2]) for i in range(29)} == {16}
    assert main(command(copy, tmp_path / "out")) == 2


def test_a_killed_preparation_goes_on_and_ends_alike(folder, prepared, tmp_path):
    output = tmp_path / "set"
    process = subprocess.Popen(
        [sys.executable, "-m", "deit_jax", *command(folder, output)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(output.glob("train-*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(output.glob("train-*.array_record"))
    if not (output / "manifest.json").exists():
        with pytest.raises(FileNotFoundError, match="No prepared data set"):
            open_source("prepared", "train", str(output))
        assert main([*command(folder, output), "--short-side=9"]) == 2
        assert main(command(folder, output)) == 0
    names = sorted(path.name for path in prepared.iterdir())
    assert sorted(path.name for path in output.iterdir()) == names
    for name in names:
        assert (output / name).read_bytes() == (prepared / name).read_bytes(), name
