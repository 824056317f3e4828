"""The train step: sharding, slices, skipped steps, the moving average, the teacher's view."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.training.small_runs import (
    batches,
    convnet,
    make,
    small_config,
    split_over,
    transformer,
)

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]


def losses(devices, model, steps=4):
    sharding = split_over(devices)
    _, state, step = make(small_config(), model, sharding=sharding)
    state = jax.device_put(state, NamedSharding(sharding.mesh, PartitionSpec()))
    result = []
    for batch in batches(steps):
        batch = jax.device_put(batch, sharding)
        before = state["sums"]["loss"]
        fresh = state["step"] % 25 == 0
        state = step(state, {}, batch)
        result.append(float(state["sums"]["loss"] - jnp.where(fresh, 0, before)))
    return result


@pytest.mark.parametrize("model", [transformer, convnet])
def test_losses_are_the_same_on_one_and_eight_devices(model):
    # BatchNorm statistics, mixing partners and random numbers included. Adam turns the rounding
    # of near-zero gradients into steps, so later losses drift; 1e-4 is 30 times what is seen.
    np.testing.assert_allclose(losses(1, model), losses(8, model), rtol=1e-4)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.full), 4])
def test_micro_batches_equal_the_single_batch(devices):
    states = []
    for count in (1, 4):
        # SGD, so that parameters are linear in the gradient. Dropout and depth are per image.
        config = small_config(
            training__micro_batches=count,
            optimizer__name="sgd",
            model__drop_rate=0.1,
            model__drop_path_rate=0.5,
            ema__decay=0.5,
        )
        _, state, step = make(config, sharding=split_over(devices))
        for batch in batches(3):
            state = step(state, {}, batch)
        states.append(state)
    # The average has left the start.
    assert jnp.any(states[0]["ema"]["params"]["head"]["bias"] != 0)
    whole, slices = (jax.tree.leaves((s["params"], s["ema"], s["sums"])) for s in states)
    for a, b in zip(whole, slices, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_stochastic_depth_changes_the_loss():
    losses = []
    for rate in (0.0, 0.5):
        _, state, step = make(small_config(model__drop_path_rate=rate))
        losses.append(float(step(state, {}, next(batches(1)))["sums"]["loss"]))
    assert abs(losses[0] - losses[1]) > 1e-3


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    _, state, step = make(small_config())
    state = step(state, {}, next(batches(1)))
    broken = jax.tree.map(lambda leaf: leaf, state)
    broken["params"]["head"]["bias"] = jnp.full(10, jnp.nan)
    after = step(broken, {}, next(batches(1)))
    for name in ("params", "batch_stats", "opt_state", "ema"):
        for a, b in zip(jax.tree.leaves(broken[name]), jax.tree.leaves(after[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(after["step"]) == 2
    assert int(after["skipped"]) == int(after["skipped_in_a_row"]) == 1
    assert np.isfinite(after["sums"]["loss"])
    assert float(after["sums"]["count"]) == 1.0
    after["params"]["head"]["bias"] = jnp.zeros(10)
    again = step(after, {}, next(batches(1)))
    assert (int(again["skipped"]), int(again["skipped_in_a_row"])) == (1, 0)


def test_moving_average_follows_its_formula():
    for warmup in (False, True):
        config = small_config(ema__decay=0.9, ema__warmup=warmup)
        _, state, step = make(config)
        expected = np.asarray(state["params"]["head"]["kernel"], np.float64)
        for number, batch in enumerate(batches(3)):
            state = step(state, {}, batch)
            decay = min(0.9, (1 + number) / (10 + number)) if warmup else 0.9
            new = np.asarray(state["params"]["head"]["kernel"], np.float64)
            expected = decay * expected + (1 - decay) * new
        # Three float32 roundings of numbers of size 0.1.
        np.testing.assert_allclose(state["ema"]["params"]["head"]["kernel"], expected, atol=3e-8)


def test_sums_start_afresh_after_a_log_line():
    config = small_config(log__every_steps=2)
    _, state, step = make(config)
    counts = []
    for batch in batches(5):
        state = step(state, {}, batch)
        counts.append(float(state["sums"]["count"]))
    assert counts == [1, 2, 1, 2, 1]


def test_teacher_sees_exactly_the_images_of_the_student():
    config = small_config(
        distillation__kind="soft",
        distillation__temperature=1.0,
        model__drop_path_rate=0.0,
    )
    # A teacher that is the student itself agrees with it only on the same images.
    model = partial(transformer, distilled=False)
    function, state, _ = make(config, model)
    _, _, step = make(config, model, teacher=function)
    after = step(state, state["params"], next(batches(1)))
    # The divergence of two equal distributions, up to float32 rounding of their logarithms.
    assert abs(float(after["sums"]["distillation_loss"])) < 1e-6
    assert float(after["sums"]["label_loss"]) > 1.0


def test_batch_statistics_are_updated():
    _, state, step = make(small_config(), convnet)
    after = step(state, {}, next(batches(1)))
    changed = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], after["batch_stats"]
    )
    assert all(jax.tree.leaves(changed))
