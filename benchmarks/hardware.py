"""What this machine is, what is installed on it, and how fast it can multiply matrices."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.report import pairs
from deit_jax.devices import PEAK_TFLOPS

_PACKAGES = ("jax", "jaxlib", "flax", "torch", "timm")
_SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}


def describe_machine() -> dict[str, Any]:
    """Return the device that JAX computes on, the processor, its cores and the GPU driver."""
    device = jax.devices()[0]
    facts: dict[str, Any] = {
        "backend": jax.default_backend(),
        "device": _cpu_name() if device.platform == "cpu" else device.device_kind,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.platform == "gpu":
        facts["driver"] = _gpu_driver()
    return facts


def describe_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of what both sides are built on."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe(packages: Sequence[str] = _PACKAGES) -> str:
    """Return how a page begins: the day, this machine, and versions, without a full stop."""
    facts = f"{pairs(describe_machine())}; {pairs(describe_versions(packages))}"
    return f"{datetime.date.today().isoformat()}: {facts}"


def peak_flops(dtype: str) -> tuple[float, str]:
    """Return the operations per second that count as 100 %, and where the number is from."""
    kind = jax.devices()[0].device_kind
    for name, peaks in PEAK_TFLOPS.items():
        if kind.startswith(name):
            return peaks[dtype] * 1e12, f"data sheet of {name}"
    return product_flops(dtype), "measured: JAX's fastest product, below"


def product_side() -> int:
    """Side of the square matrices whose product is timed on either side."""
    return _SIDE.get(jax.default_backend(), 1024)


def product_flops(dtype: str) -> float:
    """Return JAX's operations per second in a large product of matrices."""
    # Random: GPUs draw less power, and run faster, on constant numbers.
    matrix = jax.random.normal(jax.random.key(0), (product_side(),) * 2, jnp.dtype(dtype))
    product = jax.jit(lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float32))
    return fastest_product(lambda: product(matrix, matrix).block_until_ready())


def fastest_product(product: Callable[[], Any]) -> float:
    """Return the operations per second of the best of 20 calls; `product` waits for its result."""
    product()
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2 * product_side() ** 3 / best


class LoadMeter:
    """How much of the processor other processes take from its construction on (Linux; else 0)."""

    def __init__(self) -> None:
        self._start = self._read()

    def others(self) -> float:
        """Return their share of the time of all cores, 0 to 1."""
        total, busy, own = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """All cores' seconds so far, those spent working, and this process's and its children's."""
        try:
            with open("/proc/stat") as file:
                fields = [int(word) for word in file.readline().split()[1:9]]
        except OSError:
            return 0.0, 0.0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        # The fourth and fifth number are idle time and waiting for input or output (proc(5)).
        idle = fields[3] + fields[4]
        # User and system time, of this process and of the children that it has waited for.
        own = sum(os.times()[:4])
        return sum(fields) / ticks, (sum(fields) - idle) / ticks, own


def _cpu_name() -> str:
    """Return what the processor is called, with the numbers that tell generations apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return ", ".join([facts["model name"], *numbers]).replace("cpu family", "family")


def _gpu_driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return out.splitlines()[0].strip() if out.strip() else "unknown"
