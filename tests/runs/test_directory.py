import contextlib
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.reference import apply_reference
from deit_jax.config.saved import BEFORE
from deit_jax.files import strict_json, write_json
from deit_jax.runs.directory import open_run
from deit_jax.runs.going_on import MAY_CHANGE, as_begun, config_changes
from deit_jax.runs.read import load_run
from deit_jax.schema import Config
from deit_jax.training import loop
from deit_jax.training.setup import train_input

CONFIG = {
    "seed": 0,
    "optimizer": {"learning_rate": 5e-4, "betas": (0.9, 0.999)},
    "log": {"every_steps": 50},
    "data": {"workers": 0, "directory": "/data"},
    "evaluation": {"every_epochs": 1.0, "weights": "raw"},
    "checkpoint": {"every_steps": 100},
    "model": {"name": "deit_micro_patch4_16", "num_classes": 10, "image_size": (16, 16)},
    "augment": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
}


def with_changes(**changes):
    """CONFIG with other values: `a__b=1` for a.b."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (config[group] if group else config)[name] = value
    return config


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


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


def test_changed_numbers_are_refused_with_old_and_new_values(tmp_path):
    open_run(tmp_path, CONFIG).close()
    before = contents(tmp_path)
    changed = with_changes(seed=1, optimizer__learning_rate=1e-3, log__every_steps=1)
    del changed["data"]["directory"]
    with pytest.raises(ValueError, match="started with another configuration") as caught:
        open_run(tmp_path, changed)
    message = str(caught.value)
    assert "seed: 0 -> 1" in message
    assert "optimizer.learning_rate: 0.0005 -> 0.001" in message
    assert "data.directory: /data -> (none)" in message
    assert "log.every_steps" not in message
    assert "Use a new --workdir" in message
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)["config.json"] == before["config.json"]
    # A refusal leaves the directory free for others.
    open_run(tmp_path, CONFIG).close()


@pytest.mark.parametrize(
    "change",
    [
        {"log__every_steps": 10},
        {"data__workers": 4},
        {"evaluation__every_epochs": 5.0},
        {"checkpoint__every_steps": 7},
    ],
    ids=str,
)
def test_what_computes_nothing_may_change_and_is_recorded(tmp_path, caplog, change):
    open_run(tmp_path, CONFIG).close()
    open_run(tmp_path, with_changes(**change)).close()
    ((key, new),) = change.items()
    group, name = key.split("__")
    old = CONFIG[group][name]
    assert f"{group}.{name}: {old} -> {new}" in caplog.text
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"] == with_changes(**change)
    assert [entry["changed"] for entry in record["history"]] == [{f"{group}.{name}": [old, new]}]


def test_other_changes_are_possible_when_asked_for(tmp_path):
    open_run(tmp_path, CONFIG).close()
    open_run(tmp_path, with_changes(seed=1), allow_config_change=True).close()
    assert load_run(tmp_path).config["seed"] == 1
    with pytest.raises(ValueError, match=r"evaluation.weights: raw -> ema"):
        open_run(tmp_path, with_changes(seed=1, evaluation__weights="ema"))
    changed = with_changes(seed=1, evaluation__weights="ema")
    open_run(tmp_path, changed, may_change=("evaluation.*",)).close()


def test_a_step_keeps_its_meaning(tmp_path):
    one, other = (with_changes(training={"batch_size": size}) for size in (32, 16))
    open_run(tmp_path, one).close()
    # Before the first checkpoint there is no step that could mean something else.
    open_run(tmp_path, other, allow_config_change=True).close()
    open_run(tmp_path, one, allow_config_change=True).close()
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"steps of 32 images, .*now 16.*--config.model.weights="):
        open_run(tmp_path, other, allow_config_change=True)
    assert (tmp_path / "config.json").read_bytes() == before


def older(config, *keys):
    """A saved configuration from before some keys existed."""
    config = json.loads(strict_json(config))
    for key in keys:
        *groups, name = key.split(".")
        group = config
        for part in groups:
            group = group[part]
        del group[name]
    return config


def test_a_run_older_than_a_key_goes_on_with_its_default(tmp_path, caplog):
    open_run(tmp_path, older(default_config(), "reference", "data.crop_ratio")).close()
    open_run(tmp_path, default_config()).close()
    (line,) = [r.message for r in caplog.records if "older than some keys" in r.message]
    assert "reference=False" in line and "data.crop_ratio=[0.75, 1.33" in line
    assert load_run(tmp_path).config == json.loads(strict_json(default_config()))
    caplog.clear()
    open_run(tmp_path, default_config()).close()
    assert not caplog.records


def test_paths_that_an_older_version_saved_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    given = json.loads(strict_json(default_config()))
    given["data"]["directory"] = "~/images"
    open_run(tmp_path, given).close()
    given["data"]["directory"] = "/home/someone/images"
    assert config_changes(tmp_path, given) == {}
    open_run(tmp_path, given).close()
    given["data"]["directory"] = "/home/other/images"
    with pytest.raises(ValueError, match="/home/someone/images -> /home/other/images"):
        open_run(tmp_path, given)


def test_a_run_older_than_the_default_of_a_key_keeps_its_ways(tmp_path, caplog):
    """Copies side by side and boxes of today's timm, also with `reference=True`; start by start."""
    asked = default_config()
    asked.reference = True
    assert apply_reference(asked) == []
    assert as_begun(tmp_path, asked) is asked
    open_run(tmp_path, older(asked, *BEFORE)).close()
    for _ in range(2):
        assert config_changes(tmp_path, asked) == {}
        config = as_begun(tmp_path, asked)
        assert {key: leaves_by_key(config)[key] for key in BEFORE} == BEFORE
        assert train_input(Config.of(config)).mix_group == 0
        assert "older than mix.box and goes on with timm, as it began" in caplog.text
        open_run(tmp_path, config).close()
    with pytest.raises(ValueError, match=r"data.spread_copies: False -> True"):
        open_run(tmp_path, asked)
    open_run(tmp_path, asked, allow_config_change=True).close()
    assert as_begun(tmp_path, asked) == asked


def test_a_new_run_does_not_change_its_ways(tmp_path):
    open_run(tmp_path, default_config()).close()
    config = default_config()
    config.data.spread_copies = False
    assert as_begun(tmp_path, config).data.spread_copies is False
    assert config_changes(tmp_path, config) == {"data.spread_copies": [True, False]}


def test_training_asks_the_run_how_it_began(tmp_path, monkeypatch):
    open_run(tmp_path, older(default_config(), *BEFORE)).close()
    prepared = []

    def prepare(config, kernel_choices, start):
        prepared.append(config.data.spread_copies)
        raise ValueError("enough")

    monkeypatch.setattr(loop, "set_up", prepare)
    for allow in (False, True):
        with pytest.raises(ValueError, match="enough"):
            loop.train(default_config(), str(tmp_path), allow_config_change=allow)
    assert prepared == [False, True]


def test_a_key_younger_than_the_run_may_not_change_what_it_computes(tmp_path):
    open_run(tmp_path, older(default_config(), "optimizer.layer_decay")).close()
    config = default_config()
    config.optimizer.layer_decay = 0.75
    with pytest.raises(ValueError, match=r"\(optimizer.layer_decay: 1.0 -> 0.75\)"):
        open_run(tmp_path, config)


def test_a_key_that_no_longer_exists_is_refused(tmp_path):
    saved = json.loads(strict_json(default_config()))
    saved["optimizer"]["lookahead"] = 5
    open_run(tmp_path, saved).close()
    with pytest.raises(ValueError, match=r"optimizer.lookahead: 5 -> \(none\)"):
        open_run(tmp_path, default_config())


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
