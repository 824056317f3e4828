"""What the data decides where a configuration leaves it open: classes, and passes in an epoch."""

import json

import numpy as np
import pytest

from configs.digits import get_config as digits
from configs.own import ARGUMENTS, get_config
from deit_jax.data.source import ArraySource
from deit_jax.runs.going_on import config_changes
from deit_jax.schema import Config
from deit_jax.training.learning_rate import steps_of_epoch, total_steps
from deit_jax.training.loop import train
from deit_jax.training.setup import with_classes


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_few_images_are_shown_more_often_and_many_as_often_as_it_says(argument):
    config = Config.of(get_config(argument))
    least, epochs = (20_000, 300) if argument.startswith("scratch") else (2_000, 30)
    for images in (100, 1_000, 8_000, 100_000):
        per_epoch = steps_of_epoch(config, images)
        assert total_steps(config, per_epoch) == max(least, round(epochs * images / 128))
        # Warm-up and evaluations keep their share: a tenth and a twentieth of the run, say.
        assert per_epoch * epochs == pytest.approx(total_steps(config, per_epoch), abs=1)


def test_without_a_least_number_an_epoch_is_one_pass():
    config = digits("none")
    assert steps_of_epoch(Config.of(config), 50) == 50 / 96
    config.schedule.update(least_steps=7, epochs=3.0, cooldown_epochs=4.0)
    assert total_steps(Config.of(config), steps_of_epoch(Config.of(config), 50)) == 7


def test_classes_are_counted_or_checked():
    config = get_config()
    source = ArraySource("x", np.zeros((4, 2, 2, 3), np.uint8), [0, 1, 2, 0], ("a", "b", "c"))
    assert with_classes(Config.of(config), source).model.num_classes == 3
    config.model.num_classes = 7
    with pytest.raises(ValueError, match=r"pass --config\.model\.num_classes=3"):
        with_classes(Config.of(config), source)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_a_run_records_what_was_counted_and_goes_on_with_the_same_command(tmp_path, capsys):
    def config(steps):
        config = digits("none")
        config.training.batch_size = 40
        config.model.update(name="deit_micro_patch4_16", num_classes=0)
        config.schedule.update(epochs=1.0, warmup_epochs=0.0, least_steps=steps)
        config.log.tensorboard = False
        config.evaluation.every_epochs = 0.5
        return config

    assert train(config(3), str(tmp_path))["steps"] == 3
    assert (
        "(an epoch is 2.4 passes over the images: schedule.least_steps)" in capsys.readouterr().out
    )
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["model"]["num_classes"] == 10
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["split"] == "eval"] == [2, 3]
    assert lines[-1]["epoch"] == 1.0
    assert config_changes(tmp_path, config(3)) == {}
    assert train(config(3), str(tmp_path))["steps"] == 3
