"""Whatever stands in the files of a run, each of its readers answers with a sentence."""

import argparse
import copy
import itertools
import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs.digits import get_config
from deit_jax.cli.evaluate import _logged
from deit_jax.cli.main import parser_of
from deit_jax.evaluation import subjects
from deit_jax.files import strict_json
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.reports.comparison import compare_runs
from deit_jax.reports.curves import curve
from deit_jax.reports.paper_tables import started_as
from deit_jax.reports.table3 import table3_markdown
from deit_jax.runs import directory as run_directory
from deit_jax.runs import open_weights
from deit_jax.runs.directory import open_run
from deit_jax.runs.history import RunRecord
from deit_jax.runs.log import RunLog
from deit_jax.runs.open_weights import read_weights
from deit_jax.runs.read import read_run_record
from deit_jax.training.distillation import teacher
from deit_jax.training.result import best_evaluation

NAME = "deit_micro_distilled_patch4_16"
HEADS = {head: {"top1": 50.0, "top5": 90.0, "loss": 1.0} for head in ("class", "fused")}
WRONG = [None, True, -1, float("nan"), 10**400, "text", [], [["a"]], {}]


def config():
    config = get_config("hard")
    config.model.name = NAME
    config.teacher.weights = "runs/teacher"
    return config


@cache
def zeros():
    trees = abstract(model_builder(NAME))[1:]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), trees)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with a log and a result, whose checkpoint is of zeros."""
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    history = [{"changed": {"log.every_steps": [1, 2]}, "versions": {"jax": "0.9"}}]
    circumstances = {"overrides": [], "command": ["train.py"], "versions": {}, "git_commit": ""}
    record = {"config": config().to_dict(), **circumstances, "history": history}
    (path / "config.json").write_text(strict_json(record))
    flat = {f"raw/{head}/{key}": v for head, of in HEADS.items() for key, v in of.items()}
    rows = [{"step": 5, "split": "train", "epoch": 0.5, "loss": 2.0}]
    rows += [{"step": 10, "split": "eval", "epoch": 1.0, **flat}]
    rows += [{"step": 15, "split": "train", "epoch": 1.5, "loss": 1.0}]
    (path / "metrics.jsonl").write_text("".join(strict_json(row) + "\n" for row in rows))
    result = {"steps": 15, "epochs": 1.5, "seconds": 9.0, "evaluation": {"raw": HEADS}}
    result |= {"distillation": {"token": True}, "data": {"train_images": 9, "eval_images": 8}}
    result |= {"teacher": {"step": 7}, "best": {"step": 10}}
    (path / "result.json").write_text(strict_json(result))
    params, stats = zeros()
    notes = {"step": 10, "metrics": {"top1": 50.0}, "seconds": 9.0}
    # Asking git takes longer than all else.
    monkeypatch.setattr(run_directory, "circumstances", lambda: circumstances)
    monkeypatch.setattr(open_weights, "restore_parameters", lambda *_: (params, stats, notes))
    return path


def report(path):
    comparison = compare_runs([path])
    table3_markdown(comparison)
    for experiment in comparison.students:
        curve(experiment, "eval", "raw/fused/top1")
        curve(experiment, "train", "loss")
        started_as(experiment.first.record.get("command", ()))


def resume(path):
    with open_run(path, config()), RunLog(path, resume_step=15, tensorboard=False):
        best_evaluation(path, "raw/fused/top1")


def evaluate(path):
    subject = subjects.read_subject(str(path))
    asked = argparse.Namespace(class_map="", crop_ratio=None)
    _logged(subject, subject.place, subject.fusion, asked)


def predict(path):
    read_weights(path)


def teach(path):
    student = config()
    student.teacher.name, student.teacher.weights = NAME, str(path)
    student.teacher.dtype = "float32"
    teacher.load_teacher(student)


READERS = {"report": report, "resume": resume, "evaluate": evaluate, "predict": predict}
READERS["teach"] = teach


def places(value, at=()):
    """All keys of nested mappings and lists, as paths."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*at, key)
            yield from places(value[key], (*at, key))


def mutations(content):
    """Yield (what was done, content) with each key missing, and with each value a wrong one."""
    for place in places(content):
        for wrong in ("missing", *WRONG):
            changed = copy.deepcopy(content)
            *parents, last = place
            inner = changed
            for key in parents:
                inner = inner[key]
            if wrong == "missing":
                del inner[last]
            else:
                inner[last] = wrong
            yield f"{place} {wrong!r:.40}", changed


# Of each value one or two mutations in ten: all of them, and all values, come up.
EVERY = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])


def answer(read, path):
    """Let a reader read; return its sentence, or "" if it had nothing to say."""
    try:
        read(path)
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_the_run_is_sound(run):
    assert {name: answer(read, run) for name, read in READERS.items()} == dict.fromkeys(READERS, "")


# What readers of weights look at.
USED = [
    "'model', 'name'",
    "'model', 'num",
    "'model', 'image",
    "'evaluation', 'batch",
    "'data', 'cl",
]


@pytest.mark.slow
@EVERY
def test_every_configuration(run, every):
    record = json.loads((run / "config.json").read_text())
    for what, changed in itertools.islice(mutations(record), 0, None, every):
        (run / "config.json").write_text(json.dumps(changed))
        try:
            # All readers begin with this one.
            if not answer(read_run_record, run):
                answer(resume, run)
                answer(report, run)
                # Readers of weights build a model each time.
                if any(what.startswith(f"('config', {key}") for key in USED):
                    answer(evaluate, run)
                    answer(teach, run)
        except Exception as error:
            raise AssertionError(what) from error


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_every_log_and_result(run, name, every):
    text = (run / name).read_text()
    is_log = name == "metrics.jsonl"
    content = [json.loads(line) for line in text.splitlines()] if is_log else json.loads(text)
    for what, changed in itertools.islice(mutations(content), 0, None, every):
        lines = [json.dumps(row) + "\n" for row in changed] if is_log else [json.dumps(changed)]
        (run / name).write_text("".join(lines))
        for read in (report, resume):
            try:
                answer(read, run)
            except Exception as error:
                raise AssertionError(f"{read.__name__}: {what}") from error


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
@pytest.mark.parametrize("content", ["", "{", "5", "null", "[]", "{}", '"a"', "[" * 99_999, "\xff"])
def test_files_of_another_kind(run, name, content):
    (run / name).write_bytes(content.encode("latin-1") + b"\n" + content.encode("latin-1"))
    for read in READERS.values() if name == "config.json" else (report, resume):
        answer(read, run)
    # A log that holds nothing is one to which nothing has been written.
    assert answer(report, run) or (name == "metrics.jsonl" and not content)


@pytest.mark.parametrize(("evaluated", "part"), [("raw", "params"), ("ema", "ema")])
def test_what_the_run_evaluates_is_read_unless_said_otherwise(run, monkeypatch, evaluated, part):
    record = json.loads((run / "config.json").read_text())
    record["config"]["evaluation"]["weights"] = evaluated
    (run / "config.json").write_text(strict_json(record))
    restore, parts = open_weights.restore_parameters, []
    monkeypatch.setattr(
        open_weights, "restore_parameters", lambda *args: [parts.append(args[2]), restore(*args)][1]
    )
    assert read_weights(run, which="").which == ("ema" if part == "ema" else "model")
    assert subjects.read_subject(str(run)).which == evaluated
    # Training begins with what it always began with.
    read_weights(run)
    read_weights(run, which="ema")
    assert parts == [part, part, "params", "ema"]
    for name, words in {"predict": ["x", "--weights=y"], "convert": ["x", "y"]}.items():
        assert parser_of(name).parse_args(words).which == ""


@pytest.mark.parametrize(
    ("source", "directory", "name"),
    [
        ("tfds", "sets/flowers/2.1.1", "flowers"),
        ("tfds", "sets/flowers", "flowers"),
        ("tfds", "", "tfds"),
        ("folder", "sets/flowers/2.1.1", "2.1.1"),
    ],
)
def test_data_is_called_by_its_folder_and_not_by_a_version(source, directory, name):
    config = {"data": {"source": source, "directory": directory}}
    assert RunRecord(Path("run"), config, None, {}, (), ()).data_name == name
