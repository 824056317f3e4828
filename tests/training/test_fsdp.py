"""The state split over devices: the same losses, a part on each, and on to any other split."""

from functools import cache

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from configs.digits import get_config
from deit_jax.runs.checkpoints.directory import read_manifests
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.scale.memory_plan import part_of
from deit_jax.sharding import put_batch
from deit_jax.training import setup as setups
from deit_jax.training.loop import train

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]


def configure(fsdp=1):
    config = get_config("none")
    config.model.name = "deit_micro_distilled_patch4_16"
    config.training.batch_size = 32
    config.mesh.fsdp = fsdp
    return config


def set_up(devices, fsdp):
    """The digits run on some of the devices."""
    mesh = jax.make_mesh(
        (devices // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:devices],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setups, "create_mesh", lambda fsdp: mesh)
        return setups.set_up(configure(fsdp))


@cache
def run(devices, fsdp, steps):
    """The losses of the first steps of the digits run, and the state after them."""
    setup = set_up(devices, fsdp)
    state, sums = setup.initial_state(), [0.0]
    with setup.train_batches(0, ()) as batches:
        for _ in range(steps):
            state = setup.train_step(state, {}, put_batch(next(batches), setup.mesh))
            sums.append(float(state["sums"]["loss"]))
    # The sums start afresh after every log line, here after 50 steps.
    return np.diff(sums), state


def held_by_one(tree):
    """Bytes of a tree on one device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_losses_and_memory_of_a_state_in_four_parts(eight_devices):
    # Eight devices add up in another order; 1e-6 are eight roundings of a loss of 2.3.
    (one, whole), (split, parts) = run(1, 1, 4), run(8, 4, 4)
    np.testing.assert_allclose(split, one, atol=1e-6)
    for name in ("params", "opt_state", "ema"):
        leaves = jax.tree.leaves(whole[name])
        # By the rule, from the shapes alone: all of these models' large matrices have a side of 64.
        large = sum(x.nbytes for x in leaves if x.ndim > 1 and x.size >= 8192)
        assert held_by_one(parts[name]) == held_by_one(whole[name]) - large * 3 // 4
        assert held_by_one(parts[name]) == part_of(whole[name], 4)
        assert held_by_one(parts[name]) < 0.4 * held_by_one(whole[name])


# runs/checkpoints/test_manager.py reads small ones on other numbers of devices.
@pytest.mark.full
def test_a_checkpoint_of_four_parts_is_read_into_any_number(eight_devices, tmp_path):
    _, state = run(8, 4, 4)
    with Checkpoints(tmp_path / "4") as checkpoints:
        checkpoints.save(4, state, meta={})
    expected = jax.device_get(state)
    for devices, fsdp in ((1, 1), (8, 8)):
        abstract = set_up(devices, fsdp).abstract_state
        restored = Checkpoints(tmp_path / "4").restore_latest(abstract).state
        for leaf, like, values in zip(
            *map(jax.tree.leaves, (restored, abstract, expected)), strict=True
        ):
            assert leaf.sharding == like.sharding
            np.testing.assert_array_equal(leaf, values)
        with Checkpoints(tmp_path / f"{devices}{fsdp}") as checkpoints:
            checkpoints.save(4, restored, meta={})
    # Fingerprints, shapes and types: what is written does not depend on who held which part.
    manifests = [read_manifests(folder)[0][4] for folder in tmp_path.iterdir()]
    assert len(manifests) == 3 and all(manifest == manifests[0] for manifest in manifests)


@pytest.mark.full
@pytest.mark.parametrize(("devices", "fsdp"), [(4, 2), (8, 1), (8, 8)])
def test_fifty_losses_are_the_same_on_any_devices(devices, fsdp, eight_devices):
    np.testing.assert_allclose(run(devices, fsdp, 50)[0], run(1, 1, 50)[0], atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 8)])
def test_a_run_goes_on_with_another_split_and_says_so(
    before, after, eight_devices, tmp_path, caplog
):
    def configured(fsdp, epochs):
        config = configure(fsdp)
        config.data.train_images = 96
        config.schedule.update(epochs=epochs, warmup_epochs=0.0, name="constant")
        config.log.update(every_steps=1, tensorboard=False)
        return config

    undisturbed = train(configured(before, 4.0), str(tmp_path / "undisturbed"))
    train(configured(before, 2.0), str(tmp_path / "moved"))
    # A longer schedule is another configuration, another split is not.
    config = configured(after, 4.0)
    moved = train(config, str(tmp_path / "moved"), allow_config_change=True)
    assert f"mesh.fsdp: {before} -> {after}" in caplog.text
    assert "Going on with other last bits than before" in caplog.text
    assert moved["steps"] == undisturbed["steps"] == 12
    losses = [result["evaluation"]["raw"]["class"]["loss"] for result in (moved, undisturbed)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
