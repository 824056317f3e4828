"""Directories of runs: how they begin, whose they are, and what is written to them."""

import contextlib
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deit_jax.config.command_line import read_overrides
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.files import strict_json, write_json
from deit_jax.runs.directory import open_run
from deit_jax.runs.going_on import MAY_CHANGE
from deit_jax.runs.read import load_run
from tests.runs.small_configuration import CONFIG, contents, with_changes


def test_a_new_run_says_how_it_was_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=c.py:x", "--config.seed=3"])
    with open_run(tmp_path / "a" / "run", ConfigDict(CONFIG)) as run:
        assert not run.resumed
        assert run.path == tmp_path / "a" / "run"
        assert run.checkpoints == tmp_path / "a" / "run" / "checkpoints"
    record = json.loads((run.path / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(CONFIG))
    assert record["overrides"] == ["config.seed=3"]
    assert record["command"] == ["train.py", "--config=c.py:x", "--config.seed=3"]
    assert record["versions"]["jax"] == jax.__version__
    assert set(record) == {"config", "overrides", "command", "versions", "git_commit"}


def test_overrides_are_recorded_alike_in_all_their_forms(tmp_path, monkeypatch):
    words = ["--config.seed", "3", "-config.mesh.fsdp=2", "--config.log.tensorboard"]
    words += ["--noconfig.training.repeatable", "--config=c.py:x", "config.seed=4"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    # The configuration itself is read by other code.
    expected = read_overrides(words).overrides
    open_run(tmp_path, CONFIG).close()
    found = json.loads((tmp_path / "config.json").read_text())["overrides"]
    assert found == [
        "config.seed=3",
        "config.mesh.fsdp=2",
        "config.log.tensorboard=True",
        "config.training.repeatable=False",
    ]
    assert read_overrides([f"--{flag}" for flag in found]).overrides == expected


def test_a_resumed_run_is_left_as_it_was(tmp_path):
    open_run(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").read_bytes()
    with open_run(tmp_path, CONFIG) as run:
        assert run.resumed
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_real_configuration_is_read_back_unchanged(tmp_path):
    config = default_config()
    open_run(tmp_path, config).close()
    open_run(tmp_path, config).close()
    assert load_run(tmp_path).config["model"]["name"] == config.model.name
    # Each pattern still speaks of something.
    for pattern in MAY_CHANGE:
        assert any(key.startswith(pattern.rstrip("*")) for key in leaves_by_key(config)), pattern


def test_other_versions_are_recorded(tmp_path):
    open_run(tmp_path, CONFIG).close()
    record = json.loads((tmp_path / "config.json").read_text())
    record["versions"]["jax"] = "0.0.1"
    (tmp_path / "config.json").write_text(json.dumps(record))
    for _ in range(2):
        open_run(tmp_path, CONFIG).close()
    (entry,) = json.loads((tmp_path / "config.json").read_text())["history"]
    assert entry["changed"] == {}
    assert entry["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("name", ["thesis.tex", "metrics.jsonl", "config.json"])
def test_other_peoples_directories_are_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text('{"model_type": "vit"}')
    before = contents(tmp_path)
    with pytest.raises((FileExistsError, ValueError), match=r"holds no run.*config\.json"):
        open_run(tmp_path, CONFIG)
    assert contents(tmp_path) == before


def test_an_interrupted_start_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on gone\n")
    (tmp_path / "config.json.tmp").write_text('{"conf')
    open_run(tmp_path, CONFIG).close()
    assert load_run(tmp_path).config["seed"] == 0


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is a file; choose another --workdir"):
        open_run(tmp_path / "file", CONFIG)
    with pytest.raises(ValueError, match=r"Cannot write to .*/file/below \(Not a directory\)"):
        open_run(tmp_path / "file" / "below", CONFIG)


@contextlib.contextmanager
def read_only(path):
    """Take the permission away; from the superuser, who has all, by mounting it once more."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        yield
        path.chmod(0o755)
        return
    try:
        subprocess.run(["mount", "--bind", path, path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("what", ["", "checkpoints"])
def test_directories_without_permission_are_refused(tmp_path, what):
    open_run(tmp_path, CONFIG).close()
    place = tmp_path / what
    place.mkdir(exist_ok=True)
    words = rf"Cannot write to {place} \((Permission denied|Read-only file system)\)"
    with read_only(place), pytest.raises(ValueError, match=words):
        open_run(tmp_path, CONFIG)
    open_run(tmp_path, CONFIG).close()


def test_a_full_disk_leaves_the_old_configuration(tmp_path, monkeypatch):
    open_run(tmp_path, CONFIG).close()
    before = contents(tmp_path)["config.json"]

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError, match="No space left on device"):
        open_run(tmp_path, with_changes(log__every_steps=1))
    assert contents(tmp_path)["config.json"] == before
    # Nothing has to be written to go on as before.
    open_run(tmp_path, CONFIG).close()


@pytest.mark.slow
def test_one_process_at_a_time(tmp_path):
    script = (
        "import sys; from deit_jax.runs.directory import open_run\n"
        f"run = open_run(sys.argv[1], {CONFIG!r}); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout.readline() == "open\n"
    with pytest.raises(ValueError, match=f"Another process .process {other.pid} on .* is training"):
        open_run(tmp_path, CONFIG)
    # A lock dies with its process, however that ends.
    other.kill()
    other.communicate()
    with open_run(tmp_path, CONFIG), pytest.raises(ValueError, match="Another process"):
        open_run(tmp_path, CONFIG)
    open_run(tmp_path, CONFIG).close()


def test_only_the_first_process_of_a_run_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.checkpoints == tmp_path / "run" / "checkpoints"
    assert not (tmp_path / "run").exists()


def test_result_is_strict_json(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        assert load_run(tmp_path).result is None
        result = {"loss": float("nan"), "best": [np.float32(1.5), float("inf")], "n": np.int64(2)}
        run.write_result(result)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {"loss": None, "best": [1.5, None], "n": 2}
    assert not (tmp_path / "result.json.tmp").exists()


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_strict_json_has_no_constants_of_its_own():
    def refuse(name):
        raise AssertionError(name)

    text = strict_json({"a": [float("nan"), -float("inf"), 0.1]})
    assert json.loads(text, parse_constant=refuse) == {"a": [None, None, 0.1]}


def test_runs_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_run(tmp_path)
