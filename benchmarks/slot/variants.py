"""One train step in many formulations: what each of them changes on this card.

Depths 4 and 8 are timed and what a block takes follows from their difference, so that compilation
takes seconds; the whole depth is timed for the first and the last alone.
"""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from benchmarks import jax_side
from benchmarks.cases import Case
from benchmarks.slot.formulations import formulated
from benchmarks.slot.sizes import Sizes, sizes
from benchmarks.timing import Program, speedup, spread, take_turns

_LARGE = "large, "


@dataclass(frozen=True)
class Variant:
    """The house's step with some things changed.

    Attributes:
        text: what is changed.
        formulations: switched on, see `formulations.FORMULATIONS`.
        flags: of XLA.
        residual: type of the residual stream.
        kernels: which kernels of our own are used.
    """

    text: str
    formulations: tuple[str, ...] = ()
    flags: dict[str, Any] = field(default_factory=dict)
    residual: str = "float32"
    kernels: str = "none"


_BEFORE = ("padded attention", "normal rows", "one projection")
# XLA's own defaults.
_MERGED = {"xla_gpu_dot_merger_threshold_mb": 32}
_TRITON = {"xla_gpu_enable_triton_gemm": True}
VARIANTS: dict[str, Variant] = {
    "A": Variant("as measured on 2026-11-26", _BEFORE, {**_MERGED, **_TRITON}),
    "B": Variant("A, products by cuBLAS, none by Triton", _BEFORE, _MERGED),
    "C": Variant(
        "B with cuBLASLt, tiles searched exhaustively",
        _BEFORE,
        {
            **_MERGED,
            "xla_gpu_enable_cublaslt": True,
            "xla_gpu_exhaustive_tiling_search": True,
        },
    ),
    "D": Variant("B, 197 tokens without padding", _BEFORE[1:], _MERGED),
    "E": Variant("D, LayerNorm keeps its statistics", _BEFORE[2:], _MERGED),
    "F": Variant("E, separate projections: the step as it is"),
    "G": Variant("F with a residual stream in bfloat16", residual="bfloat16"),
    "K": Variant("G with fused normalisation", residual="bfloat16", kernels="norm"),
    "L": Variant("K with GELU fused into products", residual="bfloat16", kernels="all"),
    "T": Variant("F, products by Triton where it is faster", flags=_TRITON),
}
CHUNK = 3
"""Variants that are compiled at once, before the first of them is timed."""


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    return _Bench(parts, sizes(small)).measure


class _Bench:
    """Compiles the next few variants at once, then times them one by one, each beside A."""

    def __init__(self, parts: Sequence[str], chosen: Sizes) -> None:
        self._parts, self._sizes = list(parts), chosen
        self._reference: list[Program] = []
        self._ready: dict[str, list[Future[Program]]] = {}

    def measure(self, part: str) -> dict[str, Any]:
        """Time a variant ("A") at two depths, or in full ("A in full", "large, G in full")."""
        if part.endswith(" in full"):
            return self._in_full(part.removesuffix(" in full"))
        if part not in self._ready:
            self._compile(part)
        if not self._reference:
            self._reference = self._programs("A", keep=True)
        ours = self._reference if part == "A" else self._programs(part)
        chosen, variant = self._sizes, VARIANTS[part]
        others = [] if part == "A" else self._reference
        times = take_turns([*ours, *others], rounds=chosen.rounds, turn_seconds=chosen.turn_seconds)
        result = {"what": variant.text, **_slope(times[:2], chosen)}
        if others:
            before = _slope(times[2:], chosen)["ms in full, by slope"]
            result["times as fast as A"] = before / result["ms in full, by slope"]
            # The depths themselves were compared round by round.
            result["at the greater depth"] = speedup(times[1], times[3]).median
        return result

    def _compile(self, part: str) -> None:
        """Start compiling this variant and those after it, and wait for all of them.

        While one compiles it tries kernels on the device, so nothing is timed meanwhile.
        """
        ahead = [name for name in self._parts[self._parts.index(part) :] if name in VARIANTS]
        wanted = dict.fromkeys([*([] if self._reference else ["A"]), *ahead[:CHUNK]])
        programs = self._sizes.train()
        with ThreadPoolExecutor(2 * len(wanted)) as pool:
            for name in wanted:
                # Patches are not for several threads at once: tracing happens here, in order.
                try:
                    lowered = [_lower(name, programs, depth) for depth in self._sizes.depths]
                except Exception as error:
                    # For its own turn: those that are compiled beside it lose nothing.
                    failed: Future[Program] = Future()
                    failed.set_exception(error)
                    self._ready[name] = [failed]
                else:
                    self._ready[name] = [pool.submit(compile_) for compile_ in lowered]

    def _programs(self, name: str, keep: bool = False) -> list[Program]:
        futures = self._ready[name] if keep or name == "A" else self._ready.pop(name)
        return [future.result() for future in futures]

    def _in_full(self, name: str) -> dict[str, Any]:
        """Time all blocks of a variant; of "large, G", those of the large model."""
        self._ready, self._reference = {}, []
        jax.clear_caches()
        gc.collect()
        chosen, letter = self._sizes, name.removeprefix(_LARGE)
        case = chosen.train(chosen.large if name.startswith(_LARGE) else "")
        program = _lower(letter, case, 0)()
        (times,) = take_turns([program], rounds=chosen.rounds, turn_seconds=chosen.turn_seconds)
        seconds = spread(times)
        return {
            "what": f"{case.model}: {VARIANTS[letter].text}",
            "ms in full": 1e3 * seconds.median,
            "lowest": 1e3 * seconds.low,
            "highest": 1e3 * seconds.high,
            "images/s": case.batch_size / seconds.median,
            "MiB planned": program.planned_bytes / 2**20,
        }


def _lower(name: str, case: Case, depth: int) -> Callable[[], Program]:
    """Trace a variant now; return the function that compiles it."""
    variant = VARIANTS[name]
    case = replace(case, residual=variant.residual, kernels=variant.kernels)
    with formulated(variant.formulations):
        return jax_side.lower(case, depth=depth, options=variant.flags)


def _slope(times: list[list[float]], chosen: Sizes) -> dict[str, float]:
    """Return both depths' times, what a block takes, and what all blocks would, in ms."""
    shallow, deep = (1e3 * spread(rounds).median for rounds in times)
    first, second = chosen.depths
    block = (deep - shallow) / (second - first)
    return {
        f"ms at {first} blocks": shallow,
        f"ms at {second} blocks": deep,
        "ms a block": block,
        "ms in full, by slope": shallow + (chosen.full - first) * block,
    }
