"""The bundle `reference=True`: applied whole, or refused with the key that stands against it."""

from pathlib import Path

import pytest

from configs.digits import get_config
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.reference import REFERENCE, apply_reference
from deit_jax.config.validate import validate


def asking(reference=True):
    config = default_config()
    config.data.directory = "somewhere"
    config.reference = reference
    return config


def test_sets_its_keys_and_nothing_else():
    config = asking()
    assert apply_reference(config) == []
    before, after = leaves_by_key(asking()), leaves_by_key(config)
    changed = {key for key in after if after[key] != before[key]}
    assert {key: after[key] for key in REFERENCE} == REFERENCE
    assert changed == {
        "distillation.normaliser",
        "distillation.without_teacher",
        "mix.box",
        "schedule.per_epoch",
    }
    assert validate(config, device_count=8) == []


def test_does_nothing_unless_asked():
    config = asking(reference=False)
    assert apply_reference(config, ["distillation.normaliser"]) == []
    assert leaves_by_key(config) == leaves_by_key(asking(reference=False))


@pytest.mark.parametrize("key", REFERENCE)
def test_a_key_that_was_set_to_something_else_is_named(key):
    other = {
        "distillation.normaliser": "batch",
        "distillation.without_teacher": "both",
        "mix.box": "timm",
        "schedule.per_epoch": False,
        "schedule.cooldown_epochs": 10.0,
        "optimizer.no_decay": "timm",
        "ema.warmup": True,
        "evaluation.fusion": "sum_softmax",
    }[key]
    config = asking()
    group, name = key.split(".")
    config[group][name] = other
    # Given on the command line, even if it is what it would have been anyway.
    (problem,) = apply_reference(config, [key])
    assert f"sets {key} to {REFERENCE[key]!r}, but it was given as {other!r}" in problem
    assert config[group][name] == other


def test_a_config_file_that_deviates_is_refused():
    config = get_config("none")
    config.reference = True
    (problem,) = apply_reference(config)
    assert "ema.warmup" in problem


def test_a_configuration_that_only_claims_to_be_the_reference_is_invalid():
    problems = validate(asking())
    assert any("config.schedule.per_epoch is False, not True" in p for p in problems)


def test_what_the_reference_cannot_mean_is_refused():
    config = asking()
    apply_reference(config)
    config.mix.group = 0
    config.training.loss = "multi_hot_binary_cross_entropy"
    group, loss = validate(config)
    assert "batch of one process" in group
    assert "label_smoothing=0" in loss


def test_every_key_is_in_the_table_of_differences():
    text = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()
    for key in REFERENCE:
        assert f"`{key}`" in text
