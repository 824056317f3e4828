"""What the frozen teacher costs, alone and inside the distilled student's step."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import jax_side
from benchmarks.cases import Case
from benchmarks.slot.formulations import formulated
from benchmarks.slot.sizes import sizes
from benchmarks.timing import spread, take_turns

_WIDE = "teacher, wide epilogues"


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    chosen = sizes(small)

    def timed(name: str, case: Case) -> dict[str, Any]:
        with formulated(["wide epilogues"] if name == _WIDE else []):
            program = jax_side.build(case)
        (times,) = take_turns([program], rounds=chosen.rounds, turn_seconds=chosen.turn_seconds)
        seconds = spread(times)
        return {
            "what": str(case),
            "ms": 1e3 * seconds.median,
            "lowest": 1e3 * seconds.low,
            "highest": 1e3 * seconds.high,
            "images/s": case.batch_size / seconds.median,
            "MiB planned": program.planned_bytes / 2**20,
        }

    taught = chosen.distill()
    cases = {
        _WIDE: chosen.inference(chosen.teacher),
        "teacher alone": chosen.inference(chosen.teacher),
        # The same student without a teacher: what is left of the step is the teacher's.
        "student alone": replace(taught, mode="train", teacher=""),
        "step": taught,
    }
    return lambda part: timed(part, cases[part])
