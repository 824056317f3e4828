"""Labels on disk: what was written is read, and nothing else ever is."""

import collections
import fcntl
import functools
import json
import multiprocessing
import os
import random
import re
import shutil
import threading

import numpy as np
import pytest

from deit_jax.config.kept_labels import has_labels
from deit_jax.training.distillation import label_store
from deit_jax.training.distillation.label_store import LabelStore
from deit_jax.training.distillation.label_stream import LabelStream, read_stream

SHAPES = {"label": ((6,), "uint16"), "rest": ((6, 2), "float32")}
PART = "parts/00000000.safetensors"
STREAM = {"seed": 0, "data.repeats": 3, "mix.minmax": ()}


@functools.cache
def answers(step):
    rng = np.random.default_rng(step)
    return {
        "label": rng.integers(0, 1000, 6).astype(np.uint16),
        "rest": rng.normal(size=(6, 2)).astype(np.float32),
    }


def store(directory, **stream):
    return LabelStore(directory, LabelStream({**STREAM, **stream}, {"name": "net"}), SHAPES)


def fill(directory, steps, **stream):
    filled = store(directory, **stream)
    for step in steps:
        filled.add(step, answers(step))
    filled.save()
    return filled


def same(found, step):
    return found is not None and all(
        np.array_equal(found[name], array) for name, array in answers(step).items()
    )


def test_what_was_added_is_read_by_position(tmp_path, monkeypatch):
    monkeypatch.setattr(label_store, "_MOST_STEPS", 8)
    steps = [*range(5, 30), 100]
    assert not has_labels(tmp_path / "labels")
    fill(tmp_path / "labels", steps)
    assert read_stream(tmp_path / "labels").teacher == {"name": "net"}
    again = store(tmp_path / "labels")
    assert again.steps_per_part == 8
    for verify in (False, True):
        assert np.flatnonzero(again.present(0, 1000, verify=verify)).tolist() == steps
        assert (np.flatnonzero(again.present(7, 100)) + 7).tolist() == steps[2:-1]
        assert again.present(3, 3).shape == (0,)
    for step in range(120):
        found = again.read(step)
        assert same(found, step) if step in steps else found is None


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ({"seed": 1}, "seed was 0 and is 1 here"),
        ({"data.repeats": 1}, "data.repeats was 3 and is 1"),
        ({"mix.minmax": (0.1, 0.2)}, "mix.minmax was [] and is [0.1, 0.2]"),
        ({"augment.policy": ""}, "augment.policy was None and is ''"),
    ],
)
def test_another_stream_is_refused_by_its_first_key(tmp_path, stream, words):
    fill(tmp_path / "labels", [0])
    with pytest.raises(ValueError, match=re.escape(words)):
        store(tmp_path / "labels", **stream)


def test_another_stream_that_was_begun_meanwhile_is_refused(tmp_path):
    late = store(tmp_path / "labels", seed=1)
    fill(tmp_path / "labels", [0])
    late.add(0, answers(1))
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        late.save()
    assert same(store(tmp_path / "labels").read(0), 0)


def test_a_part_of_another_stream_or_place_is_never_taken_for_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(label_store, "_MOST_STEPS", 8)
    fill(tmp_path / "own", range(16))
    fill(tmp_path / "other", range(16), seed=1)
    parts = [tmp_path / name / "parts" / "00000000.safetensors" for name in ("own", "other")]
    shutil.copy(parts[1], parts[0])
    assert store(tmp_path / "own").read(0) is None
    shutil.copy(parts[0].with_name("00000001.safetensors"), parts[0])
    assert store(tmp_path / "own").read(0) is None
    # One's own, of another machine, is as good as if it had been computed here.
    fill(tmp_path / "elsewhere", range(16))
    shutil.copy(tmp_path / "elsewhere" / "parts" / parts[0].name, parts[0])
    assert same(store(tmp_path / "own").read(0), 0)


def test_a_directory_of_something_else_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\)"):
        store(tmp_path / "labels")
    with pytest.raises(ValueError, match="is a file"):
        store(tmp_path / "labels" / "thesis.txt")
    (tmp_path / "labels" / "stream.json").write_text("{}")
    with pytest.raises(ValueError, match="not written by deit_jax"):
        store(tmp_path / "labels")
    assert (tmp_path / "labels" / "thesis.txt").read_text() == "mine"
    # "" keeps no labels, also where a file of that name happens to lie.
    monkeypatch.chdir(tmp_path / "labels")
    assert not has_labels("") and has_labels(tmp_path / "labels")


def test_a_damaged_description_is_refused_and_can_be_written_again(tmp_path):
    fill(tmp_path / "labels", [0])
    path = tmp_path / "labels" / "stream.json"
    path.write_text(path.read_text().replace('"net"', '"bet"'))
    with pytest.raises(ValueError, match=r"stream\.json is damaged; delete it"):
        store(tmp_path / "labels")
    path.unlink()
    assert same(fill(tmp_path / "labels", [1]).read(0), 0)
    assert same(store(tmp_path / "labels").read(1), 1)


def flip(path, dice):
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path, dice):
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def fill_a_full_disk(directory, dice):
    """Write all once more while one of the ways to the disk, now this, now that, has no room."""

    def full(*arguments, **_):
        if isinstance(arguments[0], dict):
            # Of the file there is a beginning.
            arguments[1].write_bytes(bytes(dice.randrange(9000)))
        raise OSError(28, "No space left on device")

    places = [(label_store, "save_file"), (os, "fsync"), (os, "replace"), (LabelStream, "begin")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(*places[dice.randrange(len(places))], full)
        with pytest.raises(OSError, match="No space left"):
            fill(directory, STEPS)


def two_writers(directory, dice):
    """Let two begin, of which each has half, and write in turn; one of them is killed."""
    shutil.rmtree(directory)
    writers = [store(directory), store(directory)]
    for step in STEPS:
        writers[step % 2].add(step, answers(step))
        if dice.random() < 0.2:
            writers[dice.randrange(2)].save()
    (directory / "parts").mkdir(parents=True, exist_ok=True)
    partial = f".00000000.safetensors.{dice.randrange(9999)}-0123abcd.partial"
    (directory / "parts" / partial).write_bytes(b"begun")
    writers[dice.randrange(2)].save()


STEPS = range(40)
HARM = {
    "a bit of a part": (45, lambda d, dice: flip(d / PART, dice)),
    "a bit of the description": (10, lambda d, dice: flip(d / "stream.json", dice)),
    "a part cut short": (14, lambda d, dice: cut(d / PART, dice)),
    "a description cut short": (4, lambda d, dice: cut(d / "stream.json", dice)),
    "an empty part": (2, lambda d, _: (d / PART).write_bytes(b"")),
    "a missing part": (3, lambda d, _: (d / PART).unlink()),
    "a missing description": (2, lambda d, _: (d / "stream.json").unlink()),
    "a full disk": (10, fill_a_full_disk),
    "two writers": (10, two_writers),
}


def test_harm_of_any_kind_is_survived_computed_again_or_refused(tmp_path):
    """100 of 100: never a label that is not the step's, and in the end all are there."""
    fill(tmp_path / "whole", STEPS)
    dice, ends = random.Random(0), collections.Counter()
    for kind, (count, harm) in HARM.items():
        for _ in range(count):
            directory = tmp_path / "harmed"
            shutil.copytree(tmp_path / "whole", directory)
            harm(directory, dice)
            try:
                harmed = store(directory)
                found = [harmed.read(step) for step in STEPS]
                assert all(each is None or same(each, step) for step, each in enumerate(found))
                there = harmed.present(0, 40, verify=True)
                assert [each is not None for each in found] == there.tolist()
                ends[kind, "survived" if there.all() else "computed again"] += 1
            except ValueError as error:
                # As the sentence says.
                assert re.search(r"stream\.json .*(damaged; delete it|not written by)", str(error))
                (directory / "stream.json").unlink()
                ends[kind, "refused"] += 1
            fill(directory, STEPS)
            mended = store(directory)
            assert all(same(mended.read(step), step) for step in STEPS)
            shutil.rmtree(directory)
    assert ends.total() == 100
    assert {kind for kind, end in ends if end == "refused"} == {
        "a bit of the description",
        "a description cut short",
    }
    assert ends["a full disk", "survived"] == 10 and ends["a missing part", "computed again"] == 3


def _write(directory, first):
    fill(directory, range(first, 60, 2))


def test_two_writers_keep_what_each_has_written(tmp_path):
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=_write, args=(tmp_path / "labels", n)) for n in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    written = store(tmp_path / "labels")
    assert all(same(written.read(step), step) for step in range(60))


def test_two_writers_in_turn_do_not_lose_a_step(tmp_path):
    one, other = store(tmp_path / "labels"), store(tmp_path / "labels")
    for step in range(0, 20, 2):
        one.add(step, answers(step))
        other.add(step + 1, answers(step + 1))
    threads = [threading.Thread(target=writer.save) for writer in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store(tmp_path / "labels").present(0, 20).all()


def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert same(fill(tmp_path / "labels", [0]).read(0), 0)
    assert "cannot be locked" in caplog.text


def test_a_full_disk_loses_nothing_that_was_there(tmp_path, monkeypatch):
    filled = fill(tmp_path / "labels", range(10))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(label_store, "save_file", full)
        filled.add(10, answers(10))
        with pytest.raises(OSError, match="No space left"):
            filled.save()
    assert store(tmp_path / "labels").present(0, 20).sum() == 10
    # Kept in memory, and written when there is room again.
    assert filled.unsaved_parts == 1
    filled.save()
    assert filled.unsaved_parts == 0 and store(tmp_path / "labels").present(0, 20).sum() == 11
    assert json.loads((tmp_path / "labels" / "stream.json").read_text())["stream"]["seed"] == 0
    # Or let go of: then it is not there for the writer either.
    filled.add(12, answers(12))
    filled.forget()
    assert filled.read(12) is None and same(filled.read(10), 10)
