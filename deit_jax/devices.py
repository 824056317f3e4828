"""What is known of accelerators: how fast they are, and what their compiler has to be told."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax

_TRACED_FOR: ContextVar[str] = ContextVar("traced_for", default="")

# Dense TFLOP/s of the vendors' data sheets, by `device_kind`: bfloat16, and float32 as JAX
# multiplies it by default on that device (TF32 on NVIDIA, bfloat16 passes on TPU).
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "NVIDIA H200": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H100 PCIe": {"bfloat16": 756.0, "float32": 378.0},
    "NVIDIA A100": {"bfloat16": 312.0, "float32": 156.0},
    "NVIDIA L40S": {"bfloat16": 362.0, "float32": 183.0},
    "TPU v4": {"bfloat16": 275.0, "float32": 275.0},
    "TPU v5 lite": {"bfloat16": 197.0, "float32": 197.0},
    "TPU v5p": {"bfloat16": 459.0, "float32": 459.0},
    "TPU v6 lite": {"bfloat16": 918.0, "float32": 918.0},
}


def check_devices() -> None:
    """Start the devices that programs will run on.

    Raises:
        ValueError: there are none, or none of the kind that JAX_PLATFORMS asks for; one sentence.
    """
    try:
        jax.devices()
    # Mostly RuntimeError; for a kind whose plug-in is not installed an assertion without text.
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS")
        kind = f"the devices of JAX_PLATFORMS={asked}" if asked else "any device"
        reason = " ".join(str(error).split())[:200] or "JAX is not installed for them"
        raise ValueError(
            f"JAX cannot start {kind} ({reason.rstrip('.')}); install JAX for them and check their "
            "driver (for NVIDIA GPUs: pip install 'jax[cuda13]', nvidia-smi), or set "
            "JAX_PLATFORMS=cpu."
        ) from error


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Let what is traced inside be for this platform, whatever devices are here."""
    token = _TRACED_FOR.set(platform)
    try:
        yield
    finally:
        _TRACED_FOR.reset(token)


def platform() -> str:
    """Return what the program that is traced will run on: "cpu", "gpu" or "tpu".

    It is told by `traced_for`, or by the mesh of `sharding.batch_split_over`, whose devices may be
    elsewhere; outside of both programs are for the default device.
    """
    if named := _TRACED_FOR.get():
        return named
    told = jax.sharding.get_abstract_mesh().abstract_device
    if told is None:
        return jax.default_backend()
    # JAX 0.10.0 names the kind alone.
    kind = told.device_kind
    return "cpu" if kind == "cpu" else "tpu" if kind.startswith("TPU") else "gpu"


def on_nvidia() -> bool:
    """Return whether programs are traced for NVIDIA GPUs of compute capability 8.0 or higher."""
    if platform() != "gpu":
        return False
    device = jax.devices()[0]
    if device.platform != "gpu":
        # Compiled for a GPU that is elsewhere; none older is described (benchmarks/devices).
        told = jax.sharding.get_abstract_mesh().abstract_device
        return told is not None and told.device_kind.startswith("NVIDIA")
    return "cuda" in device.client.platform_version and float(device.compute_capability) >= 8.0


def compiler_options(
    platform: str, *, kernel_choices: Path | None = None, remat: bool = False
) -> dict[str, Any] | None:
    """Return XLA's options for products, convolutions and their order; None but for GPUs.

    Products are left to cuBLAS, whose kernels add biases, and to what is there, on the way out,
    and never merged into a wide one whose result is then cut. XLA's own, written in Triton, do not
    in bfloat16; and its search for them (of JAX 0.11.2, on an H200) ends the process that trains a
    convnet in float32.

    Args:
        platform: that is compiled for.
        kernel_choices: makes a program repeat itself to the bit. For every product and convolution
            XLA times several kernels and takes the fastest, and some add up in whatever order
            their threads arrive; these are then left out, and the choices kept in this folder, as
            text. It must exist when the program is compiled. Source: openxla.org/xla/determinism.
        remat: blocks are computed again in the backward pass. With several GPUs XLA would do that
            early, to have work while gradients cross, and keep the results: memory was all that was
            wanted, so that what crosses is waited for.
    """
    if platform != "gpu":
        return None
    options: dict[str, Any] = {
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_dot_merger_threshold_mb": 0,
    }
    if kernel_choices is not None:
        options["xla_gpu_exclude_nondeterministic_ops"] = True
        options["xla_gpu_per_fusion_autotune_cache_dir"] = str(kernel_choices)
    if remat:
        options["xla_gpu_enable_latency_hiding_scheduler"] = False
    return options


def memory_bytes() -> int:
    """Return the memory that programs may take of each device; 0 where the device does not say."""
    return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0))


def machine_memory_bytes() -> int:
    """Return the memory of this machine, or what its container may take of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        # "max" where there is no limit.
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def out_of_memory(error: Exception) -> str:
    """Say what to do about a step that needs more memory than the device has."""
    first = str(error).splitlines()[0]
    return (
        f"The device has too little memory for this run ({first}); use a smaller "
        "training.batch_size or model.image_size, or more training.micro_batches, in a new "
        "--workdir, or go on with --config.training.remat=blocks or more --config.mesh.fsdp."
    )
