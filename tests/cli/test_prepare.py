"""Preparing an image folder: the same records, after a kill too, and every damage named."""

import json
import multiprocessing
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
from deit_jax.data.open import open_source
from deit_jax.data.prepare.checked_records import Resize
from deit_jax.data.prepare.write import write_prepared
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.stream.read_or_replace import DamagedRecordError, read_image
from tests.cli.stuck import StuckSource
from tests.inputs import train_input

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
    options = train_input(image_size=(16, 16), batch_size=7, repeats=3, threads=1)
    streams = [train_batches(source, options, num_steps=5) for source in (before, after)]
    for ours, theirs in zip(*streams, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.slow
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
        read_image(source, 10)
    options = train_input(image_size=(16, 16), batch_size=30, threads=1, max_damaged=1)
    with train_batches(source, options, num_steps=1) as batches:
        next(batches)
        assert [damage.number for damage in batches.damaged] == [10]


@pytest.mark.slow
def test_verify_and_the_source_name_damaged_labels(prepared, tmp_path, capsys):
    """`data.classes` and `data.fraction` choose by them, without reading a record."""
    damaged = tmp_path / "damaged"
    shutil.copytree(prepared, damaged)
    file = damaged / "train-labels.npy"
    whole = file.read_bytes()
    labels = np.load(file)
    # The first of the second shard.
    labels[8] ^= 1
    np.save(file, labels)
    assert main(["prepare", str(damaged), "--verify", "--workers=1"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "train-00001-of-00004.array_record: the file of labels says otherwise of 1 rec" in printed
    )
    for content in (whole[:-1], whole[:60], b"", b"other"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"train-labels\.npy is damaged"):
            _ = open_source("prepared", "train", str(damaged)).labels
        assert main(["prepare", str(damaged), "--verify", "--workers=1"]) == 1
        assert "train-labels.npy is damaged" in "".join(capsys.readouterr().out.split("\n"))
    np.save(file, labels[1:])
    with pytest.raises(ValueError, match="not one label for each of 30 images"):
        _ = open_source("prepared", "train", str(damaged)).labels


def test_damaged_files_are_left_out_and_named(folder, tmp_path, capsys):
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    (copy / "train" / "b" / "07.jpeg").write_bytes((copy / "train/b/07.jpeg").read_bytes()[:200])
    assert main([*command(copy, tmp_path / "out"), "--short-side=16"]) == 1
    assert "train/b/07.jpeg: " in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["splits"]["train"]["images_of_each_class"] == [10, 9, 10]
    source = open_source("prepared", "train", str(tmp_path / "out"))
    assert {min(read_image(source, i)[0].shape[:2]) for i in range(29)} == {16}
    assert main(command(copy, tmp_path / "out")) == 2


def start(folder, output, workers):
    """Starts a preparation that cannot end; returns when it has written all shards but one."""
    # A shell that runs the tests in the background has them ignore it, which is handed down; what
    # is handled here is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.stuck", *command(folder, output), f"--workers={workers}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    # One worker takes the five shards in order and stops at the fourth.
    ready = 3 if workers == 1 else 4
    deadline = time.monotonic() + 120
    while len(list(output.glob("*-0*.json"))) < ready:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate()[1])
        time.sleep(0.01)
    return process


def workers_of(process):
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rsplit(")", 1)[1].split()[1])
            line = (directory / "cmdline").read_text()
        except OSError:
            continue
        if parent == process.pid and "spawn_main" in line:
            found.append(int(directory.name))
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pids):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not any(is_alive(pid) for pid in pids):
            return
        time.sleep(0.02)
    raise AssertionError("workers outlive the command")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are listed elsewhere")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_preparation_goes_on_and_ends_alike(folder, prepared, tmp_path, workers):
    output = tmp_path / "set"
    process = start(folder, output, workers)
    children = workers_of(process)
    assert len(children) == workers
    # Not the workers: they end by themselves.
    process.kill()
    process.communicate()
    wait_for_end(children)
    assert not (output / "manifest.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*.array_record")}
    assert len(finished) == (3 if workers == 1 else 4)
    with pytest.raises(FileNotFoundError, match="No prepared data set"):
        open_source("prepared", "train", str(output))
    assert main([*command(folder, output), "--short-side=9"]) == 2
    assert main(command(folder, output)) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    names = sorted(path.name for path in prepared.iterdir())
    assert sorted(path.name for path in output.iterdir()) == names
    for split in ("train", "val"):
        ours, theirs = (open_source("prepared", split, str(d)) for d in (output, prepared))
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert [ours[i].image for i in range(len(ours))] == [
            theirs[i].image for i in range(len(theirs))
        ]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are listed elsewhere")
def test_the_death_of_a_worker_is_said(folder, tmp_path):
    process = start(folder, tmp_path / "set", workers=2)
    children = workers_of(process)
    os.kill(children[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert errors.startswith("error: A worker process has died")
    wait_for_end(children)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are listed elsewhere")
def test_an_interrupt_stops_everything_at_once_and_quietly(folder, tmp_path):
    process = start(folder, tmp_path / "set", workers=2)
    children = workers_of(process)
    # As a terminal does at Ctrl-C: to the workers too.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    wait_for_end(children)


def test_an_interrupt_between_results_stops_the_workers_too(folder, tmp_path):
    def interrupt(images):
        raise KeyboardInterrupt

    sources = {"train": StuckSource(str(folder), "train")}
    # The exception is held, and with it every frame it came through.
    with pytest.raises(KeyboardInterrupt) as held:
        write_prepared(
            sources,
            tmp_path / "set",
            resizing=Resize(),
            shard_images=20,
            workers=2,
            progress=interrupt,
        )
    assert held.value is not None and multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_an_archive_is_prepared_as_its_folder(folder, prepared, tmp_path, ending):
    archive = shutil.make_archive(str(tmp_path / "images"), ending, folder)
    assert main(command(archive, tmp_path / "set")) == 0
    for split in ("train", "val"):
        ours = open_source("prepared", split, str(tmp_path / "set"))
        theirs = open_source("prepared", split, str(prepared))
        assert ours.class_names == theirs.class_names
        assert [ours[i][:2] for i in range(len(ours))] == [
            theirs[i][:2] for i in range(len(theirs))
        ]
        # Names are kept, so that a validation image can be told by the number in its name.
        assert [os.path.basename(ours[i].name) for i in range(len(ours))] == [
            os.path.basename(theirs[i].name) for i in range(len(theirs))
        ]
    assert ours[0].name == f"{archive}/val/a/00.jpeg"


def test_unusual_images_are_named(prepared, capsys):
    assert main(["prepare", str(prepared), "--verify"]) == 0
    printed = capsys.readouterr().out
    for oddity, name in (
        ("PNG in a file called .jpeg", "train/b/04.jpeg"),
        ("CMYK, converted to RGB", "train/c/05.jpeg"),
        ("grey, repeated to RGB", "train/a/06.jpeg"),
    ):
        after = printed.split(f"{oddity}:\n", 1)[1]
        assert name in after.split("unusual", 1)[0]
    assert "37 images read again, 0 problems" in " ".join(printed.split())


@pytest.mark.slow
def test_what_resizing_hides_is_told_all_the_same(tmp_path, capsys):
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((40, 50), 3000, np.uint16)).save(folder / "deep.png")
    Image.new("CMYK", (50, 40)).save(folder / "cmyk.jpg")
    Image.new("RGB", (50, 40)).save(folder / "plain.png")
    # No JPEG is so wide; shrunk to 16 rows it still has 70,000 columns.
    thin = np.random.default_rng(0).integers(0, 256, (17, 74_375, 3), np.uint8)
    Image.fromarray(thin).save(folder / "thin.png", compress_level=1)
    output = tmp_path / "out"
    arguments = ["prepare", str(tmp_path / "images"), str(output), "--splits=train", "--workers=1"]
    assert main([*arguments, "--short-side=16"]) == 0
    source = open_source("prepared", "train", str(output))
    assert read_image(source, 3)[0].shape == (16, 70_000, 3)
    expected = Image.fromarray(thin).resize((70_000, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(read_image(source, 3)[0], np.asarray(expected))
    for again in (False, True):
        if again:
            assert main(["prepare", str(output), "--verify"]) == 0
        printed = capsys.readouterr().out
        # Nothing is said of PNG files that are JPEG now.
        assert printed.count("unusual but sound") == 2
        assert "values above 255 become white, as in Pillow and torchvision:\n" in printed
        assert "CMYK, converted to RGB" in printed and "plain.png" not in printed
