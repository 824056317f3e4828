"""The recipes of DeiT III, against the reference's commands (README_revenge.md)."""

import pytest

from configs import cosub, deit3
from deit_jax.config.keys import leaves_by_key
from deit_jax.training.learning_rate import peak_learning_rate

# Pixels, images per step, rate, epochs, decay, stochastic depth, as the commands state them.
COMMANDS = {
    "small": (224, 2048, 4e-3, 800, 0.05, 0.05),
    "base": (192, 2048, 3e-3, 800, 0.05, 0.2),
    "large": (192, 2048, 3e-3, 800, 0.05, 0.45),
    "huge": (154, 2048, 3e-3, 800, 0.05, 0.6),
    "base,finetune": (224, 512, 1e-5, 20, 0.1, 0.2),
    "large,finetune": (224, 512, 1e-5, 20, 0.1, 0.45),
    "huge,finetune": (224, 512, 1e-5, 20, 0.1, 0.55),
    "small,384": (384, 512, 1e-5, 20, 0.1, 0.0),
    "small,21k": (224, 2048, 1e-3, 240, 0.02, 0.05),
    "base,21k": (224, 2048, 1e-3, 240, 0.02, 0.1),
    "large,21k": (224, 2048, 1e-3, 240, 0.02, 0.3),
    "huge,21k": (126, 2048, 1e-3, 90, 0.02, 0.5),
    "small,21k_finetune": (224, 2048, 3e-4, 50, 0.02, 0.05),
    "base,21k_finetune": (224, 2048, 3e-4, 50, 0.02, 0.15),
    "large,21k_finetune": (224, 2048, 3e-4, 50, 0.02, 0.4),
    "huge,21k_finetune": (224, 2048, 3e-4, 50, 0.02, 0.45),
}


@pytest.mark.parametrize("argument", COMMANDS)
def test_numbers_of_the_command(argument):
    config = deit3.get_config(argument)
    assert COMMANDS[argument] == (
        config.model.image_size[0],
        config.training.batch_size,
        peak_learning_rate(config),
        config.schedule.epochs,
        config.optimizer.weight_decay,
        config.model.drop_path_rate,
    )
    values = leaves_by_key(config)
    assert values["augment.erasing_probability"] == 0 and values["schedule.warmup_epochs"] == 5
    stage = argument.partition(",")[2]
    if stage in ("finetune", "384"):
        kind = ("adamw", "cross_entropy", 0.1, "rand-m9-mstd0.5-inc1", "random_resized", 1, 0.8)
    elif stage.startswith("21k"):
        kind = ("lamb", "cross_entropy", 0.1, "3a", "simple", 1, 0.0)
    else:
        kind = ("lamb", "multi_hot_binary_cross_entropy", 0.0, "3a", "random_resized", 3, 0.8)
    keys = ("optimizer.name", "training.loss", "training.label_smoothing", "augment.policy")
    keys += ("data.crop", "data.repeats", "mix.mixup_alpha")
    assert kind == tuple(values[key] for key in keys)


def test_stages_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="'small,finetune' is no experiment"):
        deit3.get_config("small,finetune")


def test_cosub_is_deit_iii_with_another_loss():
    for size in cosub.ARGUMENTS:
        ours, recipe = leaves_by_key(cosub.get_config(size)), leaves_by_key(deit3.get_config(size))
        assert {key for key in ours if ours[key] != recipe[key]} == {"training.cosub"}
