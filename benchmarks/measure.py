"""Everything about one case: its programs built, timed and, on request, weighed."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax

from benchmarks import jax_side, memory
from benchmarks.cases import OURS, Case
from benchmarks.flops import model_flops
from benchmarks.hardware import LoadMeter
from benchmarks.report import PLAN_KIND, Result
from benchmarks.timing import Program, speedup, spread, take_turns


def measure_case(
    case: Case,
    *,
    against: tuple[str, ...],
    micro_batches: tuple[int, ...],
    attention: tuple[str, ...],
    build_threads: int,
    rounds: int,
    turn_seconds: float,
    peak: float,
    fresh_processes: bool,
) -> list[Result]:
    """Build all programs of a case, let them take turns, and return one result for each.

    Args:
        case: the workload.
        against: the other programs, "torch" or "torch_compile".
        micro_batches: of training; each program is built with every one of them.
        attention: forms of attention; deit_jax's programs are built with every one of them.
        build_threads: how many of deit_jax's programs are compiled at once, PyTorch's meanwhile.
        rounds: turns of each program.
        turn_seconds: shortest turn.
        peak: operations per second that count as 100 %.
        fresh_processes: also measure peak memory, which takes each program's time once more.
    """
    counts, attention = (
        ((1,), ("auto",)) if case.mode == "inference" else (micro_batches, attention)
    )
    programs = _build_all(case, against, counts, attention, build_threads)
    meter = LoadMeter()
    seconds = take_turns(programs, rounds=rounds, turn_seconds=turn_seconds)
    other_load = meter.others()
    flops, source = model_flops(case)
    results = []
    for program, times in zip(programs, seconds, strict=True):
        median = spread(times)
        result: Result = vars(case) | {
            "program": program.name,
            "micro_batches": program.micro_batches,
            "seconds": median,
            "images_per_second": case.batch_size / median.median,
            "flops": flops,
            "flops_source": source,
            "mfu": flops / median.median / peak,
            "compile_seconds": program.compile_seconds if build_threads == 1 else 0.0,
            "other_load": other_load,
            "memory_bytes": program.planned_bytes,
            "memory_kind": PLAN_KIND,
        }
        if program.name in OURS:
            result["speedups"] = speedups(times, programs, seconds)
        results.append(result)
    _release(programs, against)
    if fresh_processes:
        for result in results:
            measured = memory.measure(case, result["program"], result["micro_batches"])
            result["memory_bytes"], result["memory_kind"] = measured
    return results


def _build_all(
    case: Case,
    against: tuple[str, ...],
    counts: tuple[int, ...],
    attention: tuple[str, ...],
    threads: int,
) -> list[Program]:
    with ThreadPoolExecutor(threads) as pool:
        ours = [
            pool.submit(jax_side.build, case, count, name)
            for name, form in OURS.items()
            if form in attention
            for count in counts
        ]
        if threads == 1:
            wait(ours)
        theirs = [_build_theirs(case, name, count) for name in against for count in counts]
        return [program.result() for program in ours] + theirs


def _build_theirs(case: Case, name: str, micro_batches: int) -> Program:
    from benchmarks import torch_side

    print(f"  building {name}, micro-batches {micro_batches}", file=sys.stderr, flush=True)
    return torch_side.build(case, micro_batches, name)


def speedups(
    ours: list[float], programs: list[Program], seconds: list[list[float]]
) -> dict[str, Any]:
    """Compare with the fastest setting of each of the other programs."""
    fastest: dict[str, list[float]] = {}
    for program, times in zip(programs, seconds, strict=True):
        best = fastest.get(program.name)
        if best is None or spread(times).median < spread(best).median:
            fastest[program.name] = times
    return {name: speedup(ours, times) for name, times in fastest.items() if name not in OURS}


def _release(programs: list[Program], against: tuple[str, ...]) -> None:
    programs.clear()
    jax.clear_caches()
    gc.collect()
    if against:
        from benchmarks import torch_side

        torch_side.release()
