"""One mesh of all devices: the batch is split over it, everything else is replicated."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

DATA_AXIS = "data"


def create_mesh() -> Mesh:
    """Return a one-dimensional mesh over all devices of all processes."""
    # Explicit axes, JAX's default, would ask every product in the model for a sharding.
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def platform_of(mesh: Mesh) -> str:
    """Return what the devices of a mesh are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the state: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of inputs: the first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def batch_split_over(mesh: Mesh | AbstractMesh | None) -> AbstractContextManager[Any]:
    """While a function is traced, tell it the mesh that its batch is split over.

    `per_device` then splits over it, and `devices.platform` knows what its devices are.
    Without a mesh nothing is told.
    """
    if mesh is None:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def per_device(function: Callable[..., Array]) -> Callable[..., Array]:
    """Make each device apply a function to its own part of a batch, where the partitioner does not.

    Args:
        function: of a batch and whole arrays, without anything that crosses its images.

    Returns:
        The same function; outside of `batch_split_over`, or on one device, as it is. Gradients of
        the whole arrays are summed over the devices.
    """

    def apply(batch: Array, *whole: Array) -> Array:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or batch.shape[0] % mesh.size:
            return function(batch, *whole)
        rows, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec()
        specs = (rows, *[everywhere] * len(whole))
        return jax.shard_map(function, in_specs=specs, out_specs=rows)(batch, *whole)

    return apply


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "local_batch ..."]], mesh: Mesh
) -> dict[str, Shaped[Array, "batch ..."]]:
    """Make global arrays from this process's rows of the batch."""
    sharding = split_over_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
