"""Which kernels a program spends its time in, as the device's own clock tells it."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import jax_side
from benchmarks.slot.sizes import sizes
from benchmarks.slot.tasks import NeedsDevice

_CALLS = 5
_ROWS = 40


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    chosen = sizes(small)
    cases = {
        "train": chosen.train(),
        "inference": chosen.inference(),
        "distill": chosen.distill(),
    }

    def measure(part: str) -> dict[str, Any]:
        program = jax_side.build(cases[part])
        program.run(2)
        with tempfile.TemporaryDirectory(prefix="deit_jax-profile-") as folder:
            jax.profiler.start_trace(folder)
            try:
                program.run(_CALLS)
            finally:
                jax.profiler.stop_trace()
            kernels = read_kernels(Path(folder))
        return {"what": str(cases[part]), **table(kernels, _CALLS)}

    return measure


def read_kernels(folder: Path) -> list[tuple[str, float]]:
    """Return (name, nanoseconds) of everything that a trace saw on its devices.

    Raises:
        NeedsDevice: it saw none, as on a CPU, or where NVIDIA's CUPTI is missing.
    """
    found: list[tuple[str, float]] = []
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            if not plane.name.startswith("/device:"):
                continue
            # A GPU's streams hold its kernels, this line a TPU's; others sum them up by step and by
            # module.
            kernels = "Stream" if plane.name.startswith("/device:GPU") else "XLA Ops"
            for line in plane.lines:
                if line.name.startswith(kernels):
                    found += [(event.name, event.duration_ns) for event in line.events]
    if not found:
        raise NeedsDevice("a table of kernels needs an accelerator, and CUPTI on NVIDIA's")
    return found


def table(kernels: Sequence[tuple[str, float]], calls: int) -> dict[str, Any]:
    """Add kernels up by what they are called, their running numbers left out; of one call."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, nanoseconds in kernels:
        entry = sums[re.sub(r"([._]\d+)+$", "", name)]
        entry[0] += 1 / calls
        entry[1] += nanoseconds / 1e6 / calls
    rows = sorted(sums.items(), key=lambda item: -item[1][1])
    total = sum(ms for _, ms in sums.values())
    return {
        "kernels": len(kernels) / calls,
        "ms in kernels": total,
        "table": [["kernel", "launches", "ms", "share"]]
        + [
            [name[:80], f"{count:.4g}", f"{ms:.3f}", f"{100 * ms / total:.1f} %"]
            for name, (count, ms) in rows[:_ROWS]
        ],
    }
