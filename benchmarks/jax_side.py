"""The house's own programs: the inference function and the real train step, ready to call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.stages import Compiled, Lowered

from benchmarks import programs
from benchmarks.cases import Case
from benchmarks.timing import Program
from deit_jax.devices import platform
from deit_jax.training.example import Batch
from deit_jax.training.state import TrainState
from deit_jax.training.step import TrainStep
from deit_jax.trees import Tree

NAME = "deit_jax"


def build(case: Case, micro_batches: int = 1, name: str = NAME) -> Program:
    """Compile the case and put its data on the device; raises whatever the compiler raises."""
    if case.mode == "inference":
        return _inference(case)
    return lower(case, micro_batches, name)()


def _inference(case: Case) -> Program:
    parts = programs.inference(case, platform())
    arguments = (*parts.whole(), parts.batch())
    lowered, tracing = _lower(parts.function, *arguments, compiler_options=parts.options)
    compiled, compiling = _timed(lowered.compile)
    held: dict[str, Any] = {}

    def call() -> None:
        held["logits"] = compiled(*arguments)

    def wait() -> None:
        jax.block_until_ready(held)

    return _program(NAME, 1, call, wait, compiled, tracing + compiling)


@dataclass(frozen=True)
class Training:
    """The real train step of a case, not yet compiled, and what it is called with."""

    step: TrainStep
    state: TrainState
    teacher_params: Tree
    batch: Batch
    options: dict[str, Any] | None


def training(case: Case, micro_batches: int = 1, name: str = NAME, depth: int = 0) -> Training:
    """Put a case's step together, its state and its data on the default device."""
    parts = programs.training(case, micro_batches, name, platform(), depth=depth)
    state, teacher_params = parts.whole()
    return Training(parts.function, state, teacher_params, parts.batch(), parts.options)


def lower(
    case: Case,
    micro_batches: int = 1,
    name: str = NAME,
    *,
    depth: int = 0,
    options: dict[str, Any] | None = None,
) -> Callable[[], Program]:
    """Trace the train step of a case, its data on the device; return what compiles it.

    Args:
        case: the workload, not inference.
        micro_batches: of training.
        name: which of `OURS`.
        depth: blocks of the trained transformer; 0: as many as it has.
        options: of the compiler, beside those that training has anyway.
    """
    parts = training(case, micro_batches, name, depth)
    held: dict[str, TrainState] = {"state": parts.state}
    lowered, tracing = _lower(
        parts.step,
        held["state"],
        parts.teacher_params,
        parts.batch,
        donate_argnums=0,
        compiler_options={**(parts.options or {}), **(options or {})} or None,
    )

    def compile_() -> Program:
        compiled, compiling = _timed(lowered.compile)

        def call() -> None:
            held["state"] = compiled(held["state"], parts.teacher_params, parts.batch)

        def wait() -> None:
            jax.block_until_ready(held)

        return _program(name, micro_batches, call, wait, compiled, tracing + compiling)

    return compile_


def _lower(function: Callable, *args: Any, **options: Any) -> tuple[Lowered, float]:
    return _timed(lambda: jax.jit(function, **options).lower(*args))


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _program(
    name: str,
    micro_batches: int,
    call: Callable[[], None],
    wait: Callable[[], Any],
    compiled: Compiled,
    seconds: float,
) -> Program:
    on_cpu = jax.default_backend() == "cpu"
    return Program(name, micro_batches, call, wait, on_cpu, seconds, planned_bytes(compiled))


def planned_bytes(compiled: Compiled) -> int:
    """Return the memory that the compiler plans for a program, 0 where it does not say."""
    plan = compiled.memory_analysis()
    if plan is None:
        return 0
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return held + plan.temp_size_in_bytes
