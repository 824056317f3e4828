import contextlib
import json
import logging
import struct
import sys

import jax
import numpy as np
import pytest

from deit_jax.runs.log import RunLog
from deit_jax.training.result import best_evaluation
from tests.full_disk import full_disk

TIMING = {"images_per_second"}


def train(workdir, start, end, **options):
    """Log as a loop does, steps `start` + 1 to `end`."""
    with RunLog(workdir, resume_step=start, **options) as log:
        for step in range(start + 1, end + 1):
            rate = np.random.default_rng().random()
            log.write(step, "train", {"loss": 1 / step, "images_per_second": rate})
            if step % 3 == 0:
                log.write(step, "eval", {"epoch": step / 4, "raw/class/top1": np.float32(step)})


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def without_timing(workdir):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines(workdir)]


def events(path):
    """Read a TensorBoard event file: length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def as_tensorboard_shows(workdir):
    """Apply TensorBoard's rule: a start at step s discards what was read of s and later."""
    shown = {}
    for path in sorted(workdir.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns):
        for event in events(path):
            if event.HasField("session_log"):
                shown = {key: v for key, v in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                shown[value.tag, event.step] = value.simple_value
    return shown


def test_each_line_is_in_the_file_at_once(tmp_path):
    with RunLog(tmp_path, resume_step=0, tensorboard=False) as log:
        log.write(7, "train", {"loss": 0.25, "skipped_steps": 2})
        expected = {"step": 7, "split": "train", "loss": 0.25, "skipped_steps": 2}
        assert lines(tmp_path) == [expected]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_whole_numbers_stay_floats(tmp_path):
    train(tmp_path, 0, 3, tensorboard=False)
    assert '"raw/class/top1": 3.0' in (tmp_path / "metrics.jsonl").read_text()


def test_lines_are_strict_json(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    with RunLog(tmp_path, resume_step=0) as log:
        log.write(1, "train", {"loss": float("nan"), "gradient_norm": np.float32("inf")})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "split": "train", "loss": None, "gradient_norm": None}


@pytest.mark.parametrize("saved", [0, 1, 6, 8])
def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path, saved):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    train(whole, 0, 12)
    # Killed at step 8 after a checkpoint of an earlier one, in the middle of a line.
    train(resumed, 0, 8)
    with (resumed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "split": "tra')
    train(resumed, saved, 12)
    assert without_timing(resumed) == without_timing(whole)
    shown, expected = as_tensorboard_shows(resumed), as_tensorboard_shows(whole)
    assert shown.keys() == expected.keys()
    assert all(shown[k] == v for k, v in expected.items() if k[0].split("/")[-1] not in TIMING)


ONE = '{"step": 1, "split": "train", "loss": 2.0}\n'
TWO = '{"step": 2, "split": "train", "loss": 1.0}'


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "\0\0\0", '{"step": 2}\n', "[3]"])
def test_what_a_crash_leaves_of_the_last_line_is_dropped_and_a_whole_one_kept(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text(ONE + torn)
    RunLog(tmp_path, resume_step=2, tensorboard=False)
    assert path.read_text() == ONE
    path.write_text(ONE + TWO)
    RunLog(tmp_path, resume_step=2, tensorboard=False)
    assert path.read_text() == ONE + TWO + "\n"


@pytest.mark.parametrize(
    "damage",
    [
        '{"step": 2, "lo',
        "\0\0\0",
        "[3]",
        "5",
        '"step"',
        "",
        "\xff",
        "[" * 100_000,
        '{"split": "train", "loss": 1.0}',
        '{"step": 2, "loss": 1.0}',
        '{"step": "2", "split": "train"}',
        '{"step": 2.5, "split": "train"}',
        '{"step": -1, "split": "train"}',
        '{"step": true, "split": "train"}',
        '{"step": null, "split": "train"}',
        '{"step": 2, "split": "test"}',
        '{"step": 2, "split": ["train"]}',
        '{"step": 2, "split": "train", "loss": "1.0"}',
        '{"step": 2, "split": "train", "loss": [1.0]}',
    ],
    ids=lambda text: repr(text)[:40],
)
def test_damage_before_the_last_line_is_named_and_nothing_is_removed(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    content = (ONE + damage + "\n" + ONE + damage + "\n" + TWO + "\n").encode("latin-1")
    path.write_bytes(content)
    for read in (
        lambda: RunLog(tmp_path, resume_step=0, tensorboard=False),
        lambda: best_evaluation(tmp_path, "raw/class/top1"),
    ):
        with pytest.raises(ValueError, match=r"metrics.jsonl is damaged in lines 2 and 4 of 5;"):
            read()
    assert path.read_bytes() == content


def test_an_evaluation_that_is_owed_is_not_in_the_log_twice(tmp_path):
    train(tmp_path, 0, 3, tensorboard=False)
    before = lines(tmp_path)
    assert [line["split"] for line in before][-2:] == ["train", "eval"]
    RunLog(tmp_path, resume_step=3, owes_evaluation=True, tensorboard=False)
    assert lines(tmp_path) == before[:-1]


def test_a_log_without_anything_to_remove_is_not_rewritten(tmp_path):
    train(tmp_path, 0, 5, tensorboard=False)
    before = (tmp_path / "metrics.jsonl").stat()
    with RunLog(tmp_path, resume_step=5, tensorboard=False):
        after = (tmp_path / "metrics.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with RunLog(tmp_path, resume_step=0) as log:
        log.write(5, "eval", {"raw/class/top1": 81.5, "ema/class/top1": float("nan")})
        # Visible while the run goes on.
        shown = as_tensorboard_shows(tmp_path)
    assert shown["eval/raw/class/top1", 5] == 81.5
    assert np.isnan(shown["eval/ema/class/top1", 5])


def test_without_tensorboard_one_sentence_says_so(tmp_path, monkeypatch, caplog):
    for name in [name for name in sys.modules if name.startswith("tensorboardX")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, 0, 4)
    assert [r.getMessage() for r in caplog.records] == [
        "tensorboardX is not installed: the log is metrics.jsonl alone."
    ]
    assert len(lines(tmp_path)) == 5


def test_a_full_disk_stops_nothing_and_loses_no_line(tmp_path, caplog):
    with RunLog(tmp_path, resume_step=0) as log:
        log.write(1, "train", {"loss": 1.0})
        # In the middle of the second line.
        with full_disk((tmp_path / "metrics.jsonl").stat().st_size + 9):
            log.write(2, "train", {"loss": 2.0})
            log.write(3, "train", {"loss": 3.0})
        assert "metrics.jsonl could not be written" in caplog.text
        log.write(4, "train", {"loss": 4.0})
    assert [line["loss"] for line in lines(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_half_a_line_on_a_full_disk_does_not_hide_the_best(tmp_path):
    with RunLog(tmp_path, resume_step=0, tensorboard=False) as log:
        log.write(1, "eval", {"raw/class/top1": 70.0})
        with full_disk((tmp_path / "metrics.jsonl").stat().st_size + 9):
            log.write(2, "eval", {"raw/class/top1": 60.0})
            assert best_evaluation(tmp_path, "raw/class/top1")["step"] == 1
    assert best_evaluation(tmp_path, "raw/class/top1")["value"] == 70.0


def test_lines_that_a_full_disk_has_cost_are_told_at_the_end(tmp_path):
    with (
        contextlib.ExitStack() as until_closed,
        pytest.raises(OSError, match=rf"last 2 lines .* written to {tmp_path}/metrics.jsonl"),
        RunLog(tmp_path, resume_step=0, tensorboard=False) as log,
    ):
        log.write(1, "train", {"loss": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        until_closed.enter_context(full_disk(size + 9))
        log.write(2, "train", {"loss": 2.0})
        log.write(3, "train", {"loss": 3.0})
    # The half line is gone as soon as the run goes on.
    with RunLog(tmp_path, resume_step=3, tensorboard=False) as log:
        log.write(4, "train", {"loss": 4.0})
    assert [line["loss"] for line in lines(tmp_path)] == [1.0, 4.0]


def test_only_the_first_process_of_a_run_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    train(tmp_path, 0, 3)
    assert list(tmp_path.iterdir()) == []
