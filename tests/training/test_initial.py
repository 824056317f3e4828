"""Runs that start from weights: fine-tuning, also at another image size."""

import json

import jax
import numpy as np
import pytest

import deit_jax
from deit_jax.config.validate import validate
from deit_jax.models.functional import split
from deit_jax.runs.open_weights import read_weights
from deit_jax.training.initial import load_initial
from deit_jax.training.loop import train
from deit_jax.training.setup import set_up
from deit_jax.trees import flatten
from deit_jax.weights.position_embeddings import resize_positions
from tests.training.test_refusals import small
from tests.weights.description.described import timm_directory


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_a_student_goes_on_from_the_weights_of_another_run(tmp_path, capsys):
    train(small(), str(tmp_path / "first"))
    weights = read_weights(tmp_path / "first", checkpoint="latest")
    assert weights.model_name == "deit_micro_patch4_16" and weights.layout == "deit_jax"
    model = deit_jax.create_model("deit_micro_patch4_16")
    deit_jax.load_weights(model, tmp_path / "first", checkpoint="latest")
    deit_jax.save_weights(model, tmp_path / "student.safetensors")
    config = small(model__weights=str(tmp_path / "student.safetensors"))
    setup = set_up(config)
    state = setup.initial_state(load_initial(config, setup.abstract_state))
    for path, array in flatten(weights.params).items():
        np.testing.assert_array_equal(flatten(state["params"])[path], array)
    # That a run takes its first step from there is shown by tests/test_finetuning.py.
    capsys.readouterr()
    train(config, str(tmp_path / "second"))
    assert "pos_embed" in capsys.readouterr().out
    # A run that has checkpoints no longer needs the file.
    (tmp_path / "student.safetensors").unlink()
    train(config, str(tmp_path / "second"))


def test_another_image_size_and_the_moving_average(tmp_path):
    model = deit_jax.create_model("deit_micro_patch4_16", seed=3)
    deit_jax.save_weights(model, tmp_path / "a.safetensors")
    config = small(model__weights=str(tmp_path / "a.safetensors"), model__image_size=(24, 24))
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
    config = small(model__weights=str(tmp_path / "a"))
    setup = set_up(config)
    with pytest.raises(ValueError, match=r"4 attention heads, .* --config.model.num_heads=4"):
        load_initial(config, setup.abstract_state)
    config.model.num_heads = 4
    fitted = load_initial(config, setup.abstract_state)
    assert fitted.report.count("used") == len(fitted.report.rows)
    config.model.num_heads = 3
    assert "the width 64 of deit_micro_patch4_16 cannot be" in " ".join(validate(config))


def test_weights_of_another_model_or_another_normalisation_say_what_to_set(tmp_path, caplog):
    timm_directory(tmp_path / "a", num_heads=4)
    description = json.loads((tmp_path / "a" / "config.json").read_text())
    description["pretrained_cfg"] |= {"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "a" / "config.json").write_text(json.dumps(description))
    config = small(model__weights=str(tmp_path / "a"), model__name="deit_micro_patch2_16")
    setup = set_up(config)
    # Nothing is said of its heads: they are those of another model.
    words = (
        r"patch_embed.*; they are of deit_micro_patch4_16: .*model.name=deit_micro_patch4_16\)\.$"
    )
    with pytest.raises(ValueError, match=words):
        load_initial(config, setup.abstract_state)
    assert "--config.augment.mean=0.25,0.5,0.75 --config.augment.std=0.5,0.5,0.5" in caplog.text


def test_weights_that_are_not_there_stop_the_run_before_it_begins(tmp_path):
    config = small(model__weights=str(tmp_path / "none.pth"))
    with pytest.raises(FileNotFoundError, match=r"config.model.weights: .*none.pth"):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
