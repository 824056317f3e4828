"""The house's own programs: the inference function and the real train step, ready to call."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled, Lowered
from jaxtyping import Array, Float

from benchmarks.cases import IMAGENET_TRAIN_IMAGES, OURS, Case, train_config
from benchmarks.timing import Program
from deit_jax.devices import compiler_options
from deit_jax.models.attention import AttentionForm
from deit_jax.models.frozen import freeze
from deit_jax.models.functional import Builder, ModelFunction, abstract, initialise
from deit_jax.models.fusion import fuse
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.schema import Config
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.example import Batch
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import TrainState, create_state
from deit_jax.training.step import TrainStep, make_train_step
from deit_jax.trees import Tree

NAME = "deit_jax"


def build(case: Case, micro_batches: int = 1, name: str = NAME) -> Program:
    """Compile the case and put its data on the device; raises whatever the compiler raises."""
    if case.mode == "inference":
        return _inference(case)
    return lower(case, micro_batches, name)()


def _inference(case: Case) -> Program:
    function, params = _frozen(case.model, case.dtype)
    height, width = model_spec(case.model).image_size
    images = jax.random.normal(jax.random.key(0), (case.batch_size, height, width, 3))

    def predict(params: Tree, images: Float[Array, "batch height width 3"]) -> Array:
        heads, _ = function.head_logits(params, {}, images)
        return fuse(*heads)

    compiled, seconds = _compile(predict, params, images)
    held: dict[str, Any] = {}

    def call() -> None:
        held["logits"] = compiled(params, images)

    return _program(NAME, 1, call, lambda: jax.block_until_ready(held), compiled, seconds)


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
    config = train_config(case, micro_batches)
    student_build = _student_builder(case, config.model, OURS[name], depth)
    student, params, batch_stats = abstract(student_build)
    teacher: ModelFunction | None = None
    teacher_params: Tree = {}
    if case.mode == "distill":
        teacher, teacher_params = _frozen(case.teacher, case.dtype, like=case.model)
    optimizer = make_optimizer(config.optimizer, params)
    augment = replace(NORMALISED, mean=config.augment.mean, std=config.augment.std)
    step = make_train_step(
        student,
        teacher,
        optimizer,
        replace(Config.of(config), augment=augment, mix=UNMIXED),
        steps_per_epoch=IMAGENET_TRAIN_IMAGES / case.batch_size,
    )
    create = partial(create_state, student_build, optimizer, ema=config.ema.decay > 0)
    state = jax.jit(create)(jax.random.key(config.seed))
    options = compiler_options(jax.default_backend(), batch_norm=bool(batch_stats))
    return Training(step, state, teacher_params, _batch(case), options)


def _student_builder(case: Case, model: Any, attention: AttentionForm, depth: int) -> Builder:
    options: dict[str, Any] = dict(
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        dtype=jnp.dtype(case.dtype),
        attention=attention,
    )
    if not depth:
        return model_builder(case.model, **options)
    spec = model_spec(case.model)
    sizes = dict(num_classes=spec.num_classes, image_size=spec.image_size)
    return lambda rngs: spec.resized(depth=depth).build(rngs=rngs, **sizes, **options)


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


def _frozen(name: str, dtype: str, like: str = "") -> tuple[ModelFunction, Tree]:
    """Return a random model in its inference form, for the images and classes of `like`."""
    spec = model_spec(like or name)
    options: dict[str, Any] = dict(
        num_classes=spec.num_classes, image_size=spec.image_size, dtype=jnp.dtype(dtype)
    )
    create = partial(initialise, model_builder(name, **options))
    params, batch_stats = jax.jit(create)(jax.random.key(0))
    return freeze(name, params, batch_stats, **options)


def _batch(case: Case) -> Batch:
    """uint8 images that are already on the device."""
    spec, size = model_spec(case.model), case.batch_size
    draw = np.random.default_rng(0)
    index = np.arange(size, dtype=np.int32)
    zeros = np.zeros(size, np.int32)
    batch = {
        "image": draw.integers(0, 256, (size, *spec.image_size, 3), np.uint8),
        "label": draw.integers(0, spec.num_classes, size, np.int32),
        "epoch": zeros,
        "index": index,
        "copy": zeros,
    }
    return jax.device_put(batch)


def _compile(function: Callable, *args: Any) -> tuple[Compiled, float]:
    lowered, tracing = _lower(function, *args)
    compiled, compiling = _timed(lowered.compile)
    return compiled, tracing + compiling


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
    plan = compiled.memory_analysis()
    planned = 0
    if plan is not None:
        planned = plan.argument_size_in_bytes + plan.output_size_in_bytes
        planned += plan.temp_size_in_bytes - plan.alias_size_in_bytes
    return Program(
        name, micro_batches, call, wait, jax.default_backend() == "cpu", seconds, planned
    )
