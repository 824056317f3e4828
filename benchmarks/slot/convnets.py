"""Training a RegNetY in float32: whether it compiles, runs, and computes what a CPU computes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import jax_side
from benchmarks.cases import Case
from benchmarks.slot.correctness import on_cpu
from benchmarks.slot.sizes import sizes

_AGREES = 1e-3
"""Relative. BatchNorm's square roots are worse conditioned than products are."""


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    convnets = dict(zip(("micro", "regnety_040"), sizes(small).convnets, strict=True))

    def steps(part: str) -> dict[str, Any]:
        name, batch = convnets[part]
        case = Case(name, "train", batch, "float32")
        found = _two_losses(case)
        result: dict[str, Any] = {
            "what": str(case),
            "loss": found[0],
            "mean of three steps": found[1],
        }
        # A CPU takes minutes for the large one.
        if part == "micro":
            with on_cpu():
                expected = _two_losses(case)
            result["distance to the CPU's loss"] = error = abs(found[0] / expected[0] - 1)
            result["agrees"] = "yes" if error <= _AGREES else "no"
        return result

    return steps


def _two_losses(case: Case) -> tuple[float, float]:
    """Return the loss of the first step, and the mean of the first three."""
    with jax.default_matmul_precision("highest"):
        parts = jax_side.training(case)
        step = jax.jit(parts.step, donate_argnums=0, compiler_options=parts.options)
        state = step(parts.state, {}, parts.batch)
        first = float(state["sums"]["loss"])
        for _ in range(2):
            state = step(state, {}, parts.batch)
    return first, float(state["sums"]["loss"] / state["sums"]["count"])
