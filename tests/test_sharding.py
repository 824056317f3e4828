"""What of a state each device holds, and what is whole where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from deit_jax.sharding import (
    batch_split_over,
    create_mesh,
    place,
    split_over_batch,
    state_shardings,
    whole,
)


@pytest.fixture
def mesh(eight_devices):
    """Two copies of a state, each split over four devices."""
    return create_mesh(fsdp=4)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 192), 0),
        ((64, 63, 192), 0),
        ((3, 3, 16, 64), 2),
        # Nothing but the last axis can be divided by four.
        ((1, 197, 384), 2),
        ((197, 385), None),
        # Too small, and a vector.
        ((64, 64), None),
        ((16384,), None),
        ((), None),
    ],
)
def test_large_arrays_are_split_along_their_longest_axis(mesh, shape, axis):
    found = state_shardings(jax.ShapeDtypeStruct(shape, jnp.float32), mesh)
    expected = list(shape)
    if axis is not None:
        expected[axis] //= 4
    assert found.shard_shape(shape) == tuple(expected)


def test_nothing_is_split_where_the_state_is_copied(eight_devices):
    for mesh in (eight_devices, create_mesh()):
        assert state_shardings(np.zeros((64, 192)), mesh).is_fully_replicated


def test_devices_of_one_fsdp_group_are_neighbours(mesh):
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_rows_are_split_over_both_axes(mesh):
    rows = jax.device_put(np.arange(16.0), split_over_batch(mesh))
    held = {shard.device.id: shard.data.tolist() for shard in rows.addressable_shards}
    assert held == {device: [2.0 * device, 2.0 * device + 1] for device in range(8)}


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_weights_are_whole_where_they_are_used_and_their_gradients_split(mesh, dtype):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 192)).astype(np.float32)
    images = rng.standard_normal((16, 64)).astype(np.float32)

    @jax.jit
    def gradient(weights, images):
        with batch_split_over(mesh):
            return jax.grad(lambda w: jnp.sum(jnp.sin(images @ whole(w, dtype))))(weights)

    found = gradient(place(weights, mesh), jax.device_put(images, split_over_batch(mesh)))
    assert found.sharding.shard_shape(found.shape) == (16, 192)
    # In two dimensions, in float64; rounded weights are what they are multiplied by.
    rounded = np.asarray(jnp.asarray(weights, dtype), np.float64)
    expected = images.T.astype(np.float64) @ np.cos(images @ rounded)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_mesh_without_that_axis_leaves_arrays_alone():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    with batch_split_over(mesh):
        array = jnp.zeros((128, 128))
        assert whole(array) is array
    assert split_over_batch(mesh) == NamedSharding(mesh, PartitionSpec("data"))
