"""The train step: sharding, slices, skipped steps, the moving average, the teacher's view."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from deit_jax.models.functional import abstract
from deit_jax.schema.images import NORMALISED, UNMIXED
from tests.training.small_runs import (
    batches,
    convnet,
    make,
    one_headed,
    small_config,
    split_over,
    transformer,
)

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]


@cache
def run(model, devices):
    """Four steps of the usual configuration: (state at the start, states after each, step)."""
    sharding = split_over(devices)
    _, state, step = make(small_config(), model, sharding=sharding)
    states = [place(state, sharding)]
    for batch in batches(4):
        states.append(step(states[-1], {}, jax.device_put(batch, sharding)))
    return states, step


def place(state, sharding):
    """As every step returns it, so that the step is compiled once."""
    return jax.device_put(state, NamedSharding(sharding.mesh, PartitionSpec()))


def losses(states):
    """The loss of each step, from sums that never start afresh."""
    return np.diff([float(state["sums"]["loss"]) for state in states])


# tests/models/test_regnet.py shows the convnet's statistics to be those of the whole batch.
@pytest.mark.parametrize("model", [transformer, pytest.param(convnet, marks=pytest.mark.full)])
def test_losses_are_the_same_on_one_and_eight_devices(model):
    # BatchNorm statistics, mixing partners and random numbers included. Adam turns the rounding
    # of near-zero gradients into steps, so later losses drift; 1e-4 is 30 times what is seen.
    one, eight = (losses(run(model, devices)[0]) for devices in (1, 8))
    np.testing.assert_allclose(one, eight, rtol=1e-4)


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
        sharding = split_over(devices)
        _, state, step = make(config, augment=NORMALISED, sharding=sharding)
        state = place(state, sharding)
        for batch in batches(3):
            state = step(state, {}, jax.device_put(batch, sharding))
        states.append(state)
    # The average has left the start.
    assert jnp.any(states[0]["ema"]["params"]["head"]["bias"] != 0)
    whole, slices = (jax.tree.leaves((s["params"], s["ema"], s["sums"])) for s in states)
    for a, b in zip(whole, slices, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@cache
def run_without_depth():
    """Five steps, with another average, without stochastic depth, of log lines every two."""
    config = small_config(
        model__drop_path_rate=0.0, ema__decay=0.9, ema__warmup=False, log__every_steps=2
    )
    _, state, step = make(config)
    states = [state]
    for batch in batches(5):
        states.append(step(states[-1], {}, batch))
    return states


def test_stochastic_depth_changes_the_loss():
    with_it, without = (s[1]["sums"]["loss"] for s in (run(transformer, 1)[0], run_without_depth()))
    # A hundred times what rounding could be.
    assert abs(float(with_it) - float(without)) > 1e-4


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    (_, state, *_), step = run(transformer, 1)
    batch = jax.device_put(next(batches(1)), split_over(1))
    broken = jax.tree.map(lambda leaf: leaf, state)
    broken["params"]["head"]["bias"] = jnp.full_like(broken["params"]["head"]["bias"], jnp.nan)
    after = step(broken, {}, batch)
    for name in ("params", "batch_stats", "opt_state", "ema"):
        for a, b in zip(jax.tree.leaves(broken[name]), jax.tree.leaves(after[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(after["step"]) == 2
    assert int(after["skipped"]) == int(after["skipped_in_a_row"]) == 1
    assert np.isfinite(after["sums"]["loss"])
    assert float(after["sums"]["count"]) == 1.0
    after["params"]["head"]["bias"] = state["params"]["head"]["bias"]
    again = step(after, {}, batch)
    assert (int(again["skipped"]), int(again["skipped_in_a_row"])) == (1, 0)


@pytest.mark.parametrize("warmup", [False, True])
def test_moving_average_follows_its_formula(warmup):
    # The usual configuration warms its average up to 0.99.
    states = (run(transformer, 1)[0] if warmup else run_without_depth())[:4]
    kernels = [np.asarray(s["params"]["head"]["kernel"], np.float64) for s in states]
    expected = kernels[0]
    for number, new in enumerate(kernels[1:]):
        decay = min(0.99, (1 + number) / (10 + number)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * new
    # Three float32 roundings of numbers of size 0.1.
    found = states[-1]["ema"]["params"]["head"]["kernel"]
    np.testing.assert_allclose(found, expected, atol=3e-8)


def test_sums_start_afresh_after_a_log_line():
    counts = [float(state["sums"]["count"]) for state in run_without_depth()[1:]]
    assert counts == [1, 2, 1, 2, 1]


def test_teacher_sees_exactly_the_images_of_the_student():
    config = small_config(
        distillation__kind="soft",
        distillation__temperature=1.0,
        model__drop_path_rate=0.0,
    )
    # A teacher that is the student itself agrees with it only on the same images.
    function = abstract(partial(one_headed, config))[0]
    _, state, step = make(config, one_headed, teacher=function)
    after = step(state, state["params"], next(batches(1)))
    # The divergence of two equal distributions, up to float32 rounding of their logarithms.
    assert abs(float(after["sums"]["distillation_loss"])) < 1e-6
    assert float(after["sums"]["label_loss"]) > 1.0


def test_batch_statistics_are_updated():
    _, state, step = make(small_config(), convnet, mixing=UNMIXED, augment=NORMALISED)
    before, after = state["batch_stats"], step(state, {}, next(batches(1)))["batch_stats"]
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert all(jax.tree.leaves(changed))
