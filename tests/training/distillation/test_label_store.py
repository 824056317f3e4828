"""Labels on disk: what was written is read, and nothing else ever is."""

import fcntl
import functools
import json
import multiprocessing
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


def test_damage_of_any_kind_is_seen_and_computed_again(tmp_path, caplog):
    """100 of 100: bits flipped, files cut short, emptied and gone."""
    fill(tmp_path / "whole", range(40))
    dice = random.Random(0)
    for number in range(100):
        directory = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", directory)
        (part,) = (directory / "parts").iterdir()
        data = bytearray(part.read_bytes())
        kind = "flip" if number < 70 else ("cut", "empty", "gone")[number % 3]
        if kind == "flip":
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        part.write_bytes({"cut": data[: dice.randrange(len(data))], "empty": b""}.get(kind, data))
        if kind == "gone":
            part.unlink()
        damaged = store(directory)
        readable = [damaged.read(step) for step in range(40)]
        # A flipped bit of padding in the header leaves all as it was.
        assert all(found is None for found in readable) or all(
            same(found, step) for step, found in enumerate(readable)
        )
        assert damaged.present(0, 40, verify=True).sum() in (0, 40)
        for step in range(40):
            damaged.add(step, answers(step))
        damaged.save()
        again = store(directory)
        assert all(same(again.read(step), step) for step in range(40))
        shutil.rmtree(directory)
    assert "computed again" in caplog.text


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
