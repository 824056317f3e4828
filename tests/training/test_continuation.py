import json

from deit_jax.runs.checkpoints.manifest import Manifest
from deit_jax.training import continuation
from deit_jax.training.continuation import best_of_run, count_lost_lines, say_if_epochs_moved

METRIC = "raw/class/top1"


def write_log(path, *values):
    rows = [{"step": step, "split": "eval", METRIC: value} for step, value in values]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_lost_lines_are_said_once_and_counted_for_good(tmp_path, caplog):
    log = tmp_path / "metrics.jsonl"
    assert count_lost_lines({}, 0, log) == count_lost_lines({"log_lines": 9}, 9, log) == 0
    # More than at the checkpoint: the evaluation of its step came after it was saved.
    assert count_lost_lines({"log_lines": 9}, 10, log) == 0
    assert not caplog.records
    assert count_lost_lines({"log_lines": 9, "lost_lines": 0}, 7, log) == 2
    assert "metrics.jsonl has lost 2 of its first 9 lines" in caplog.text
    caplog.clear()
    assert count_lost_lines({"log_lines": 12, "lost_lines": 2}, 12, log) == 2
    assert not caplog.records


def test_the_best_evaluation_may_be_known_to_a_checkpoint_alone(tmp_path, monkeypatch):
    write_log(tmp_path, (10, 50.0), (30, 60.0))
    saved = {20: Manifest(20, {}, "top1", {"top1": 70.0}, {})}
    monkeypatch.setattr(continuation, "read_manifests", lambda _: (saved, {}))
    whole = {"step": 30, "metric": METRIC, "value": 60.0}
    assert best_of_run(tmp_path, METRIC, 0) == whole
    found = best_of_run(tmp_path, METRIC, 1)
    assert found == {"step": 20, "metric": METRIC, "value": 70.0, "lost_lines": 1}
    monkeypatch.setattr(continuation, "read_manifests", lambda _: ({}, {}))
    assert best_of_run(tmp_path, METRIC, 1) == whole | {"lost_lines": 1}


def test_an_epoch_that_has_moved_is_said(caplog):
    say_if_epochs_moved({}, 0, 7.5)
    say_if_epochs_moved({"epoch": 100 / 15}, 100, 15.0)
    assert not caplog.records
    # 20 images more, of 480, in batches of 32.
    say_if_epochs_moved({"epoch": 100 / 15}, 100, 500 / 32)
    assert "Step 100 was epoch 6.67 when it was saved and is epoch 6.40" in caplog.text
