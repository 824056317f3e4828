"""Runs that start from weights: fine-tuning, also at another image size."""

import json

import jax
import numpy as np
import pytest

import deit_jax
from configs.digits import get_config
from deit_jax.config.validate import validate
from deit_jax.models.functional import split
from deit_jax.runs.open_weights import read_weights
from deit_jax.training.initial import load_initial
from deit_jax.training.loop import train
from deit_jax.training.setup import set_up
from deit_jax.trees import flatten
from deit_jax.weights.position_embeddings import resize_positions
from tests.weights.description.described import timm_directory


def student(**changes):
    """The digits student with few patches, for few steps."""
    config = get_config("none")
    config.model.name = "deit_micro_patch4_16"
    config.schedule.epochs = 4.0
    config.schedule.warmup_epochs = 0.0
    config.training.batch_size = 80
    config.log.tensorboard = False
    for key, value in changes.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


@pytest.mark.slow
def test_a_student_goes_on_from_the_weights_of_another_run(tmp_path, capsys):
    train(student(), str(tmp_path / "first"))
    weights = read_weights(tmp_path / "first", checkpoint="latest")
    assert weights.model_name == "deit_micro_patch4_16" and weights.layout == "deit_jax"
    model = deit_jax.create_model("deit_micro_patch4_16")
    deit_jax.load_weights(model, tmp_path / "first", checkpoint="latest")
    deit_jax.save_weights(model, tmp_path / "student.safetensors")
    # At a learning rate of nothing, what is measured at the end is what was loaded.
    still = dict(optimizer__learning_rate=1e-12, schedule__final_learning_rate=0.0)
    still |= dict(schedule__warmup_learning_rate=0.0, optimizer__weight_decay=0.0)
    config = student(model__weights=str(tmp_path / "student.safetensors"), **still)
    config.schedule.epochs = 1.6
    capsys.readouterr()
    second = train(config, str(tmp_path / "second"))
    first = json.loads((tmp_path / "first" / "result.json").read_text())
    measured = [run["evaluation"]["raw"]["class"]["loss"] for run in (first, second)]
    np.testing.assert_allclose(*measured, rtol=1e-5)
    assert "pos_embed" in capsys.readouterr().out
    # A run that has checkpoints no longer needs the file.
    (tmp_path / "student.safetensors").unlink()
    train(config, str(tmp_path / "second"))


def test_another_image_size_and_the_moving_average(tmp_path):
    model = deit_jax.create_model("deit_micro_patch4_16", seed=3)
    deit_jax.save_weights(model, tmp_path / "a.safetensors")
    config = student(model__weights=str(tmp_path / "a.safetensors"), model__image_size=(24, 24))
    config.data.crop = "random_resized"
    setup = set_up(config)
    fitted = load_initial(config, setup.abstract_state)
    state = jax.device_get(setup.initial_state(fitted))
    before, after = flatten(split(model)[1]), flatten(state["params"])
    for path, array in before.items():
        if path == ("pos_embed",):
            array = resize_positions(np.asarray(array), (4, 4), (6, 6))
        np.testing.assert_array_equal(after[path], array)
        np.testing.assert_array_equal(flatten(state["ema"]["params"])[path], array)


def test_a_start_has_as_many_heads_as_its_description(tmp_path):
    timm_directory(tmp_path / "a", num_heads=4)
    config = student(model__weights=str(tmp_path / "a"))
    setup = set_up(config)
    with pytest.raises(ValueError, match=r"4 attention heads, .* --config.model.num_heads=4"):
        load_initial(config, setup.abstract_state)
    config.model.num_heads = 4
    fitted = load_initial(config, setup.abstract_state)
    assert fitted.report.count("used") == len(fitted.report.rows)
    config.model.num_heads = 3
    assert "the width 64 of deit_micro_patch4_16 cannot be" in " ".join(validate(config))


def test_weights_that_are_not_there_stop_the_run_before_it_begins(tmp_path):
    config = student(model__weights=str(tmp_path / "none.pth"))
    with pytest.raises(FileNotFoundError, match=r"config.model.weights: .*none.pth"):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
