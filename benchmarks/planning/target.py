"""Devices that are not here, as their compilers present them to JAX."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from jax.stages import Compiled, Lowered

from benchmarks.planning.devices import Wanted
from deit_jax.sharding import DATA_AXIS, FSDP_AXIS

INSTALL = "pip install 'deit_jax[plan]' (some 5 GB)"
_NEEDED = {"gpu": "JAX's plug-in for CUDA", "tpu": "libtpu"}
# What XLA says of a product that Triton can do only in ways that a GPU would have to try.
_NO_TILES = ("output tile sizes", "No supported config found")
# A GPU that is not here cannot be asked which of several kernels is fastest.
_GPU_OPTIONS: dict[str, Any] = {"xla_gpu_autotune_level": 0}


def open_mesh(wanted: Wanted) -> Mesh:
    """Return a mesh of the devices; what is compiled for it cannot be run.

    Raises:
        ValueError: their compiler is not installed, or knows no such topology; one sentence.
    """
    device = wanted.device
    try:
        if device.platform == "gpu":
            found = topologies.get_topology_desc(
                platform="cuda",
                target_config=device.compiler_target,
                topology=f"1x1x{wanted.topology}",
            )
        else:
            _silence_libtpu()
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{device.compiler_target}:{wanted.topology}"
            )
    # Whatever a plug-in that is missing or does not fit raises.
    except Exception as error:
        reason = " ".join(str(error).split())
        about_topology = device.platform == "tpu" and "topology" in reason.lower()
        if about_topology and _is_installed("libtpu"):
            raise ValueError(
                f"libtpu knows no {device.title} of topology {wanted.topology}: {reason[:200]}"
            ) from error
        raise ValueError(
            f"Planning for {device.title} needs {_NEEDED[device.platform]}: {INSTALL} "
            f"({type(error).__name__}: {reason[:120]})."
        ) from error
    devices: np.ndarray = np.array(found.devices)
    if wanted.topology == device.smallest:
        # The smallest machine of some TPUs has several chips.
        devices = devices[:1]
    return Mesh(devices.reshape(-1), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def with_fsdp(mesh: Mesh, fsdp: int) -> Mesh:
    """Return the same devices as they are for `mesh.fsdp`.

    Raises:
        ValueError: it is no divisor of their number.
    """
    if mesh.size % fsdp:
        raise ValueError(f"config.mesh.fsdp is {fsdp}, which does not divide {mesh.size} devices.")
    devices = mesh.devices.reshape(-1, fsdp)
    return Mesh(devices, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _silence_libtpu() -> None:
    """Keep it from asking the network which TPU this machine is, and from wanting it alone."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    # A chip serves one process; its compiler serves several.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")


@contextlib.contextmanager
def answering_for(mesh: Mesh) -> Iterator[None]:
    """Let JAX's cuDNN module ask the mesh's devices instead of this machine's.

    It has no other way to be told: three of its functions ask for a GPU that is here.
    """
    device = mesh.devices.flat[0]
    if device.platform != "gpu":
        yield
        return
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    capability = _version(device.compute_capability)
    answers = {
        # As JAX counts it: 9.10.0 is 91000.
        "check_cudnn_version": lambda: 91000,
        "check_compute_capability": lambda wanted: capability >= _version(wanted),
        "is_cuda_compute_capability_equal": lambda wanted: capability == _version(wanted),
    }
    before = {name: getattr(cudnn, name) for name in answers}
    for name, answer in answers.items():
        setattr(cudnn, name, answer)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(cudnn, name, function)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def compile_for(mesh: Mesh, lowered: Lowered, options: dict[str, Any]) -> tuple[Compiled, str]:
    """Compile; return the program, and a note if it had to be compiled in another way.

    Args:
        mesh: that it was lowered for.
        lowered: the program.
        options: more of XLA's, which count before those set here.
    """
    if mesh.devices.flat[0].platform != "gpu":
        return lowered.compile(compiler_options=options), ""
    options = _GPU_OPTIONS | options
    try:
        return lowered.compile(compiler_options=options), ""
    except jax.errors.JaxRuntimeError as error:
        if not any(sign in str(error) for sign in _NO_TILES):
            raise
    options |= {"xla_gpu_enable_triton_gemm": False}
    note = "products by cuBLAS: some find no Triton tile unless a GPU tries them"
    return lowered.compile(compiler_options=options), note
