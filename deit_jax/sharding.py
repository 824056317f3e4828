"""One mesh of all devices: the batch is split over it, everything else is replicated."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

DATA_AXIS = "data"


def create_mesh() -> Mesh:
    """Return a one-dimensional mesh over all devices of all processes."""
    # Explicit axes, JAX's default, would ask every product in the model for a sharding.
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the state: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of inputs: the first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "local_batch ..."]], mesh: Mesh
) -> dict[str, Shaped[Array, "batch ..."]]:
    """Make global arrays from this process's rows of the batch."""
    sharding = split_over_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
