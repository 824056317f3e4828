"""A run that has had checkpoints is not started from scratch when they are gone."""

import json

import pytest

from deit_jax.config.defaults import default_config
from deit_jax.runs.directory import open_run
from deit_jax.runs.lost_checkpoints import refuse_lost_checkpoints

MADE_FROM = {"data": {"train": {}, "eval": {}}, "teacher": None, "initial": None, "devices": {}}


def log(path, *rows):
    lines = [json.dumps({"step": step, "split": split}) + "\n" for step, split in rows]
    (path / "metrics.jsonl").write_text("".join(lines))


def refuses(path, match):
    with pytest.raises(ValueError, match=match):
        refuse_lost_checkpoints(path)
    return True


def test_a_note_that_cannot_be_made_ends_no_run(tmp_path):
    run = open_run(tmp_path, default_config(), made_from=MADE_FROM)
    (run.checkpoints / "1000").mkdir(parents=True)
    away = (tmp_path / "config.json").rename(tmp_path / "away")
    run.note_first_checkpoint()
    away.rename(tmp_path / "config.json")
    run.note_first_checkpoint()
    run.close()
    assert json.loads((tmp_path / "config.json").read_text())["first_checkpoint"] == 1000


def test_a_run_notes_its_first_checkpoint_and_misses_it(tmp_path):
    run = open_run(tmp_path, default_config(), made_from=MADE_FROM)
    # Stopped before its first checkpoint: it starts again, whatever it has logged.
    run.note_first_checkpoint()
    log(tmp_path, (900, "train"), (1000, "eval"), (2000, "eval"))
    refuse_lost_checkpoints(tmp_path)
    (run.checkpoints / "1000").mkdir(parents=True)
    run.note_first_checkpoint()
    refuse_lost_checkpoints(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["first_checkpoint"] == 1000
    run.close()
    # Going on keeps the note.
    open_run(tmp_path, default_config(), made_from=MADE_FROM).close()
    (run.checkpoints / "1000").rmdir()
    assert refuses(tmp_path, "are gone: it had one of step 1,000, .*is a disk not mounted")
    run.checkpoints.rmdir()
    assert refuses(tmp_path, "are gone: it had one of step 1,000")
    # Those set aside as damaged have a sentence of their own.
    (run.checkpoints / "1000.corrupt").mkdir(parents=True)
    refuse_lost_checkpoints(tmp_path)


def test_a_link_that_leads_nowhere_is_refused_in_any_run(tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "not-mounted")
    assert refuses(tmp_path, "checkpoints is a link to .*not-mounted, which is not there")


@pytest.mark.parametrize(
    ("rows", "gone"),
    [
        ([], False),
        ([(990, "train")], False),
        # Its save may not have ended.
        ([(1500, "train")], False),
        ([(990, "train"), (1000, "eval")], False),
        ([(2000, "train")], True),
        ([(400, "eval"), (800, "eval")], True),
    ],
)
def test_older_runs_are_judged_by_their_log(tmp_path, rows, gone):
    open_run(tmp_path, default_config()).close()
    log(tmp_path, *rows)
    if gone:
        assert refuses(tmp_path, f"are gone: metrics.jsonl reaches step {rows[-1][0]:,}")
    else:
        refuse_lost_checkpoints(tmp_path)


def test_a_finished_run_has_had_checkpoints(tmp_path):
    refuse_lost_checkpoints(tmp_path)
    open_run(tmp_path, default_config(), made_from=MADE_FROM).close()
    refuse_lost_checkpoints(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    assert refuses(tmp_path, "are gone: it has finished")
