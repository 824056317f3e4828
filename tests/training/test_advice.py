"""What is said before a run whose settings do not suit its size, against the numbers themselves."""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import ablation, deit, deit3, digits, distill, finetune
from deit_jax.config.defaults import default_config
from deit_jax.config.reference import apply_reference
from deit_jax.config.validate import validate
from deit_jax.data.source import ArraySource
from deit_jax.schema import Config
from deit_jax.training.advice import advice
from deit_jax.training.announcements import opening
from deit_jax.training.learning_rate import learning_rate, total_steps
from deit_jax.training.setup import train_input

IMAGENET = 1_281_167


def own(batch=8, images=480, **changes):
    """A user's small data set with the recipe's defaults."""
    config = default_config()
    config.training.batch_size, config.mix.group = batch, 0
    config.data.repeats = 1
    config.schedule.epochs = 30.0
    config.update_from_flattened_dict(changes)
    return config, images / batch


def said(config, steps_per_epoch, words):
    return [
        sentence for sentence in advice(Config.of(config), steps_per_epoch) if words in sentence
    ]


def test_a_rate_that_rises_after_warm_up_is_said_with_what_to_set():
    config, per_epoch = own()
    (sentence,) = said(config, per_epoch, "rises after warm-up")
    assert "its peak 7.8e-06 (optimizer.learning_rate 0.0005 x batch 8 / 512;" in sentence
    assert "to 1e-05" in sentence
    assert "--config.schedule.final_learning_rate=1.6e-07" in sentence
    # It is so, and what is advised mends it.
    steps = np.linspace(5 * per_epoch, 30 * per_epoch, 40)
    rates = [float(learning_rate(config, step, per_epoch)) for step in steps]
    assert rates == sorted(rates) and rates[-1] > rates[0]
    config.schedule.final_learning_rate = 1.6e-7
    rates = [float(learning_rate(config, step, per_epoch)) for step in steps]
    assert rates == sorted(rates, reverse=True)
    assert not said(config, per_epoch, "learning rate")


def test_a_rate_that_falls_during_warm_up_is_said():
    config, per_epoch = own(**{"optimizer.learning_rate": 1e-5, "optimizer.per_images": 0})
    assert not said(config, per_epoch, "learning rate")
    config.schedule.warmup_learning_rate = 1e-4
    (sentence,) = said(config, per_epoch, "falls during warm-up, from 0.0001")
    assert "(optimizer.learning_rate 1e-05; only" in sentence
    assert "--config.schedule.warmup_learning_rate=2e-08" in sentence
    config.schedule.warmup_epochs = 0.0
    assert not said(config, per_epoch, "learning rate")


def test_an_average_that_remembers_the_start_is_said():
    config, per_epoch = own()
    steps = total_steps(config, per_epoch)
    weight = 1.0
    for _ in range(steps):
        weight *= 0.99996
    (sentence,) = said(config, per_epoch, "moving average")
    assert "some 25,000 steps, and the run has 1,800" in sentence
    assert f"{weight:.0%} of the average" in sentence and f"{weight:.0%}" == "93%"
    assert "--config.ema.warmup=True or --config.ema.decay=0.994 or" in sentence
    for key, value in (("warmup", True), ("decay", 0.994), ("decay", 0.0)):
        mended, _ = own(**{f"ema.{key}": value})
        assert not said(mended, per_epoch, "moving average")
    # The reference has no warm-up of the average.
    config.reference = True
    assert apply_reference(config) == []
    assert "ema.warmup" not in said(config, per_epoch, "moving average")[0]
    assert "ema.decay=0 for none" in said(config, 1e-3, "moving average")[0]


@pytest.mark.parametrize(
    ("batch", "group", "images", "words"),
    [
        (128, 64, 9000, "up to 3 copies of an image into a batch of 128, which has 2 mixing group"),
        (64, 0, 9000, "has 1 mixing group(s) of 64: up to 3 copies share one mixing draw"),
        (192, 64, 9000, ""),
        (192, 64, 150, "150 training images are fewer, which has 3 mixing group(s)"),
    ],
)
def test_groups_that_must_hold_copies_are_said(batch, group, images, words):
    config, per_epoch = own(batch, images, **{"data.repeats": 3, "mix.group": group})
    sentences = said(config, per_epoch, "Repeated augmentation")
    assert len(sentences) == bool(words)
    assert all(words in sentence for sentence in sentences)
    if batch == 128:
        assert "--config.mix.group=32 or --config.data.repeats=1" in sentences[0]
        config.mix.group = 32
        assert not said(config, per_epoch, "Repeated augmentation")
    config.mix.update(mixup_alpha=0.0, cutmix_alpha=0.0)
    assert not said(config, per_epoch, "Repeated augmentation")


@pytest.mark.parametrize(("batch", "devices"), [(1024, 8), (96, 8), (64, 4)])
def test_the_group_that_is_advised_is_one_that_the_devices_can_take(batch, devices):
    config, per_epoch = own(batch, 9000, **{"data.repeats": 3})
    config.data.directory, config.evaluation.batch_size = "own", batch
    assert validate(config, device_count=devices) == []
    (sentence,) = advice(Config.of(config), per_epoch, devices)[-1:]
    config.mix.group = int(re.search(r"config\.mix\.group=(\d+)", sentence)[1])
    assert validate(config, device_count=devices) == []
    assert "Repeated" not in " ".join(advice(Config.of(config), per_epoch, devices))


def test_recipes_at_their_own_size_need_no_advice():
    for config in (
        deit.get_config(),
        distill.get_config(),
        deit3.get_config(),
        ablation.get_config(),
    ):
        assert advice(Config.of(config), IMAGENET / config.training.batch_size) == []
    for what in digits.ARGUMENTS:
        config = digits.get_config(what)
        assert advice(Config.of(config), 50 / config.training.batch_size) == []
    # Thirty epochs of 512: the reference's average looks back over a third of them.
    (sentence,) = advice(Config.of(finetune.get_config()), IMAGENET / 512)
    assert "5% of the average" in sentence


def test_training_says_it_where_it_describes_itself():
    values, per_epoch = own()
    config = Config.of(values)
    images = ArraySource("own", np.zeros((480, 8, 8, 3), np.uint8), np.zeros(480, int), ["a"])
    setup = SimpleNamespace(
        config=config,
        steps_per_epoch=per_epoch,
        total_steps=total_steps(config, per_epoch),
        train_source=images,
        eval_source=images,
        train_input=train_input(config),
        taught_by=None,
        lessons=None,
        mesh=jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]),
    )
    first, *notes = opening(setup, {"params": {}}, 0).splitlines()
    assert "peak learning rate 7.81e-06" in first
    assert notes == [f"note: {sentence}" for sentence in advice(config, per_epoch)]
    assert len(notes) == 2
