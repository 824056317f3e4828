"""deit_jax beside timm with torch.compile, on the same card in the same minutes."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cases import Case
from benchmarks.slot.sizes import sizes

# JAX would take three quarters of the memory for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    from benchmarks import torch_side

    torch_side.settings()
    chosen = sizes(small)
    cases = {
        "train": chosen.train(),
        "inference": chosen.inference(),
        "distill": chosen.distill(),
        "large, train": chosen.train(chosen.large),
    }
    # timm has no networks for small images.
    against = () if small else ("torch_compile",)
    return lambda part: _measure(cases[part], against, chosen.rounds, chosen.turn_seconds)


def _measure(
    case: Case, against: tuple[str, ...], rounds: int, turn_seconds: float
) -> dict[str, Any]:
    from benchmarks import measure
    from benchmarks.hardware import peak_flops

    results = measure.measure_case(
        case,
        against=against,
        micro_batches=(1,),
        attention=("auto",),
        build_threads=2,
        rounds=rounds,
        turn_seconds=turn_seconds,
        peak=peak_flops(case.dtype)[0],
        fresh_processes=False,
    )
    result: dict[str, Any] = {"what": str(case)}
    for row in results:
        name = row["program"]
        result[f"{name}, ms"] = 1e3 * row["seconds"].median
        result[f"{name}, images/s"] = row["images_per_second"]
        result[f"{name}, MFU"] = row["mfu"]
        for other, ratio in row.get("speedups", {}).items():
            result[f"times as fast as {other}"] = ratio.median
            result["lowest"], result["highest"] = ratio.low, ratio.high
    return result
