"""One mesh of all devices: the batch is split over all of it, large arrays over one of its axes.

Along the axis `data` the state of training is copied, along `fsdp` ("fully sharded data parallel")
its large arrays are split: each device holds its part of parameters, moments and averages, and
gathers a layer's whole weights when it uses them. The batch is split over both axes alike.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped

DATA_AXIS, FSDP_AXIS = "data", "fsdp"

SMALLEST_SPLIT = 8192
"""Elements of the smallest array that is split. Smaller ones, and vectors whatever their length,
are under a hundredth of a network, and each would cost the start of a collective operation."""


def create_mesh(fsdp: int = 1) -> Mesh:
    """Return a mesh of (data, fsdp) over all devices of all processes.

    Args:
        fsdp: length of the second axis, a divisor of the number of devices. Its devices are
            neighbours: of one host, if it has so many.
    """
    shape = (jax.device_count() // fsdp, fsdp)
    # Explicit axes, JAX's default, would ask every product in the model for a sharding.
    return jax.make_mesh(shape, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2)


def platform_of(mesh: Mesh) -> str:
    """Return what the devices of a mesh are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device has a full copy of."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of inputs: the first axis is divided over the devices."""
    return NamedSharding(mesh, _rows(mesh))


def _rows(mesh: Mesh | AbstractMesh) -> PartitionSpec:
    return PartitionSpec(mesh.axis_names)


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of each array that is held between steps.

    Matrices and the like of at least `SMALLEST_SPLIT` elements are split over `fsdp` along the
    longest axis that it divides, the last one only if it divides no other: the columns of a kernel
    are what layers cut into query, key and value, and parts of rows adjoin in memory. All others
    are replicated, and so is everything where there is no such axis, or its length is 1.

    Args:
        tree: arrays, or their shapes.
        mesh: of the devices.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _split(leaf.shape, mesh)), tree)


def place(tree: Any, mesh: Mesh) -> Any:
    """Put arrays on the devices as `state_shardings` says."""
    return jax.device_put(tree, state_shardings(tree, mesh))


def split_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Return the axis along which an array is split into parts; None where it is copied."""
    divisible = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if parts == 1 or len(shape) < 2 or math.prod(shape) < SMALLEST_SPLIT or not divisible:
        return None
    return max(divisible, key=lambda axis: (axis < len(shape) - 1, shape[axis]))


def _split(shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    axis = split_axis(shape, dict(mesh.shape).get(FSDP_AXIS, 1))
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, FSDP_AXIS)


def whole(x: Float[Array, "*shape"], dtype: Any = None) -> Float[Array, "*shape"]:
    """Return a parameter, of which each device may hold a part, as a whole array on all devices.

    Its gradient is summed over the devices and split again. Where the function is not traced for a
    mesh (`batch_split_over`) that splits the array, it is returned as it is.

    Args:
        x: of the shape that it is held with.
        dtype: type in which it may cross between devices, if nothing but products of that type use
            it; None for its own. Compilers may take float32 all the same.
    """
    mesh = jax.sharding.get_abstract_mesh()
    split = PartitionSpec() if mesh.empty else _split(x.shape, mesh)
    if split == PartitionSpec():
        return x
    return _gather(x, NamedSharding(mesh, split), dtype or x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, held: NamedSharding, dtype: Any) -> Array:
    everywhere = NamedSharding(held.mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(x.astype(dtype), everywhere).astype(x.dtype)


_gather.defvjp(
    lambda x, held, dtype: (_gather(x, held, dtype), None),
    lambda held, dtype, _, grad: (jax.lax.with_sharding_constraint(grad, held),),
)


def keep_rows(batch: Shaped[Array, "batch ..."]) -> Shaped[Array, "batch ..."]:
    """Return a batch, split over the devices and not otherwise, if arrays are split over some.

    The partitioner might else split activations as the weights are, and move them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or dict(mesh.shape).get(FSDP_AXIS, 1) == 1:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, _rows(mesh)))


def batch_split_over(mesh: Mesh | AbstractMesh | None) -> AbstractContextManager[Any]:
    """While a function is traced, tell it the mesh that its batch is split over.

    `per_device` then splits over it, `whole` gathers, and `devices.platform` knows what its devices
    are. Without a mesh nothing is told.
    """
    if mesh is None:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def per_device(function: Callable[..., Any], *, check_vma: bool = True) -> Callable[..., Any]:
    """Make each device apply a function to its own part of a batch, where the partitioner does not.

    Args:
        function: of a batch, an array or a tree of them, and whole arrays, without anything that
            crosses its images; returns arrays whose first axis is split likewise.
        check_vma: of `jax.shard_map`, which knows nothing of kernels.

    Returns:
        The same function; outside of `batch_split_over`, or on one device, as it is. Gradients of
        the whole arrays are summed over the devices.
    """

    def apply(batch: Any, *arrays: Array) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or jax.tree.leaves(batch)[0].shape[0] % mesh.size:
            return function(batch, *arrays)
        rows = _rows(mesh)
        specs = (rows, *[PartitionSpec()] * len(arrays))
        split = jax.shard_map(function, in_specs=specs, out_specs=rows, check_vma=check_vma)
        return split(batch, *arrays)

    return apply


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "local_batch ..."]], mesh: Mesh
) -> dict[str, Shaped[Array, "batch ..."]]:
    """Make global arrays from this process's rows of the batch."""
    sharding = split_over_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
