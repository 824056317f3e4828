"""Configurations of a run that goes on: what may change, and what older runs did not say."""

import json

import pytest

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.reference import apply_reference
from deit_jax.config.saved import BEFORE
from deit_jax.files import strict_json
from deit_jax.runs.directory import open_run
from deit_jax.runs.going_on import as_begun, config_changes
from deit_jax.runs.read import load_run
from deit_jax.schema import Config
from deit_jax.training import loop
from deit_jax.training.setup import train_input
from tests.runs.small_configuration import CONFIG, contents, with_changes


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
