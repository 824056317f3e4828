"""Learning rates against timm's schedulers and the figures of the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from timm.scheduler.scheduler_factory import create_scheduler_v2

from deit_jax.config.defaults import default_config
from deit_jax.training.learning_rate import learning_rate, peak_learning_rate, total_steps

STEPS_PER_EPOCH = 8
# What is called in timm what is called ours.
THEIRS = {"cosine": "cosine", "linear": "poly", "step": "step", "constant": "constant"}


def rates(config, steps, steps_per_epoch):
    curve = jax.jit(jax.vmap(lambda step: learning_rate(config, step, steps_per_epoch)))
    return np.asarray(curve(jnp.asarray(steps)))


def timm_scheduler(name, config, updates_per_epoch=0, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak_learning_rate(config))
    schedule = config.schedule
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=THEIRS[name],
        num_epochs=int(schedule.epochs),
        warmup_epochs=int(schedule.warmup_epochs),
        warmup_lr=schedule.warmup_learning_rate,
        min_lr=schedule.final_learning_rate,
        decay_epochs=schedule.decay_epochs,
        # The exponent of timm's polynomial: 1 is a line.
        decay_rate=1.0 if name == "linear" else schedule.decay_rate,
        step_on_epochs=not updates_per_epoch,
        updates_per_epoch=updates_per_epoch,
        **options,
    )
    return scheduler


def recipe(name, **changes):
    config = default_config()
    config.schedule.update(name=name, epochs=30.0, decay_epochs=7.0, decay_rate=0.3, **changes)
    return config


@pytest.mark.parametrize("warmup", [0.0, 5.0])
@pytest.mark.parametrize("name", THEIRS)
def test_every_step_equals_timm(name, warmup):
    config = recipe(name, warmup_epochs=warmup)
    scheduler = timm_scheduler(name, config, STEPS_PER_EPOCH)
    # Two epochs past the end, where the last rate stays.
    steps = range(32 * STEPS_PER_EPOCH)
    expected = [scheduler._get_lr(step)[0] for step in steps]
    # float32; near its end the cosine is a difference of numbers of size 1 times the peak.
    np.testing.assert_allclose(rates(config, steps, STEPS_PER_EPOCH), expected, rtol=1e-5)


@pytest.mark.parametrize("name", THEIRS)
def test_per_epoch_equals_the_loop_of_the_reference(name):
    config = recipe(name, per_epoch=True)
    scheduler = timm_scheduler(name, config)
    # main.py: train an epoch at the rate that is set, then scheduler.step(epoch).
    expected = []
    for epoch in range(30):
        expected += [scheduler.optimizer.param_groups[0]["lr"]] * STEPS_PER_EPOCH
        scheduler.step(epoch)
    np.testing.assert_allclose(rates(config, range(240), STEPS_PER_EPOCH), expected, rtol=1e-5)


def test_per_epoch_reproduces_the_figures_seen_in_the_reference():
    config = default_config()
    config.schedule.per_epoch = True
    assert peak_learning_rate(config) == 1e-3
    steps_per_epoch = 1251.14
    first = [int(np.ceil(epoch * steps_per_epoch)) for epoch in range(7)]
    # Seen in the reference's scheduler at a peak of 1e-3, rounded to as many digits.
    expected = [1e-6, 1e-6, 2.0e-4, 4.0e-4, 6.0e-4, 8.0e-4, 9.993e-4]
    np.testing.assert_allclose(rates(config, first, steps_per_epoch), expected, rtol=5e-3)
    assert np.ptp(rates(config, range(2 * 1252, 3 * 1251), steps_per_epoch)) == 0
    last = rates(config, [total_steps(config, steps_per_epoch) - 1], steps_per_epoch)
    np.testing.assert_allclose(last, 1.011e-5, rtol=1e-3)


@pytest.mark.parametrize("steps_per_epoch", [1, 5, 1251, 10_009])
def test_epochs_change_at_their_first_step(steps_per_epoch):
    config = default_config()
    config.schedule.update(name="step", per_epoch=True, warmup_epochs=0.0)
    config.schedule.update(decay_epochs=1.0, decay_rate=0.99)
    for epoch in (2, 3, 100, 299):
        before, after = rates(
            config, [epoch * steps_per_epoch - 1, epoch * steps_per_epoch], steps_per_epoch
        )
        np.testing.assert_allclose(after / before, 0.99, rtol=1e-4)


def test_cooldown_adds_steps_at_the_last_rate():
    config = recipe("cosine", cooldown_epochs=2.0)
    assert total_steps(config, 8.0) == 256
    np.testing.assert_allclose(rates(config, range(240, 256), 8.0), 1e-5, rtol=1e-6)


@pytest.mark.parametrize(("decay_epochs", "steps"), [(10.0, 2), (7.0, 4), (40.0, 0)])
@pytest.mark.parametrize("per_epoch", [False, True])
def test_cooldown_takes_no_further_step(decay_epochs, steps, per_epoch):
    config = recipe("step", cooldown_epochs=50.0, per_epoch=per_epoch, warmup_epochs=0.0)
    config.schedule.decay_epochs = decay_epochs
    found = rates(config, range(80 * 8), 8.0) / peak_learning_rate(config)
    # The reference is an epoch late.
    np.testing.assert_allclose(found[239:], 0.3**steps, rtol=1e-5)
    config.schedule.cooldown_epochs = 0.0
    np.testing.assert_array_equal(
        rates(config, range(240), 8.0), (found * peak_learning_rate(config)).astype("f")[:240]
    )


def test_noise_is_of_an_epoch_within_its_range_and_limit():
    config = recipe("constant", warmup_epochs=0.0, noise_range=(0.2, 0.8))
    config.schedule.update(epochs=2000.0, noise_std=0.5, noise_limit=0.3)
    relative = rates(config, range(2 * 2000), 2) / peak_learning_rate(config) - 1
    by_epoch = relative.reshape(2000, 2)
    np.testing.assert_array_equal(by_epoch[:, 0], by_epoch[:, 1])
    noisy = by_epoch[400:1600, 0]
    assert np.all(by_epoch[:400] == 0) and np.all(by_epoch[1600:] == 0) and np.all(noisy != 0)
    assert np.abs(noisy).max() <= 0.3 + 1e-6
    # Standard deviation of a normal of 0.5 cut off at 0.3 (closed form 0.1684), 1,200 draws: 3 %.
    assert noisy.std() == pytest.approx(0.1684, rel=0.1)
    config.seed = 1
    assert np.any(rates(config, range(4000), 2) / peak_learning_rate(config) - 1 != relative)


def test_learning_rate_can_be_taken_as_it_is():
    config = default_config()
    assert peak_learning_rate(config) == pytest.approx(5e-4 * 1024 / 512)
    config.optimizer.per_images = 0
    assert peak_learning_rate(config) == 5e-4
