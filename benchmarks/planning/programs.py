"""Lowering programs for devices that are not here, with shapes in place of arrays."""

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.stages import Lowered, Wrapped

from benchmarks import programs
from benchmarks.cases import IMAGENET_TRAIN_IMAGES, Case
from benchmarks.jax_side import NAME
from benchmarks.planning.target import with_fsdp
from deit_jax.models.registry import model_spec
from deit_jax.schema import Config
from deit_jax.sharding import platform_of, replicated, split_over_batch, state_shardings
from deit_jax.training.distillation.labels import Kept
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.memory import say_memory
from deit_jax.training.programs import Programs, build_programs
from deit_jax.trees import Tree


@dataclass(frozen=True)
class Planned:
    """A program for some devices.

    Attributes:
        name: what it is.
        images: of a call, on all devices together.
        lowered: for the compiler.
        foreseen: what the run itself says of its memory, before it is compiled; "" of others.
    """

    name: str
    images: int
    lowered: Lowered
    foreseen: str = ""


def lower_case(case: Case, mesh: Mesh) -> Planned:
    """Lower what `benchmarks.throughput` measures, its batch split over the devices."""
    _check_batch(case.batch_size, mesh)
    if case.mode == "inference":
        parts = programs.inference(case, platform_of(mesh), mesh)
    else:
        parts = programs.training(case, 1, NAME, platform_of(mesh), mesh=mesh)
    everywhere, rows = replicated(mesh), split_over_batch(mesh)
    whole = _placed(jax.eval_shape(parts.whole), everywhere)
    batch = _placed(jax.eval_shape(parts.batch), rows)
    jitted = jax.jit(
        parts.function,
        in_shardings=(*[everywhere] * len(whole), rows),
        out_shardings=rows if case.mode == "inference" else everywhere,
        donate_argnums=parts.donated,
        compiler_options=parts.options,
    )
    return Planned(str(case), case.batch_size, jitted.lower(*whole, batch))


def lower_experiment(name: str, config: Config, step: str, mesh: Mesh) -> Planned:
    """Lower a step of an experiment, as `train.py` runs it; data and weights are not needed.

    Args:
        name: of the experiment.
        config: its configuration. The teacher must be a registered model, with the classes and
            the normalisation of the student.
        step: as `--steps` of `benchmarks.plan` has it.
        mesh: the devices.
    """
    mesh = with_fsdp(mesh, config.mesh.fsdp)
    teacher, teacher_params = _teacher(config)
    steps = IMAGENET_TRAIN_IMAGES / config.training.batch_size
    built = build_programs(config, mesh, teacher, steps_per_epoch=steps)
    size, foreseen = config.training.batch_size, ""
    if step == "evaluate":
        size = config.evaluation.batch_size
        lowered = _lower_evaluation(built, _batch(config, size, mesh, "label"))
    else:
        batch = _batch(config, size, mesh, "label", "epoch", "index", "copy")
        params = jax.tree.map(_shape, teacher_params, state_shardings(teacher_params, mesh))
        if step == "train":
            foreseen = say_memory(config, built.abstract_state, teacher_params, mesh, 0)
            train = cast(Wrapped, built.steps.whole(teacher))
            lowered = train.lower(built.abstract_state, params, batch)
        else:
            lowered = _lower_part(step, built, teacher, params, batch)
    what = f"{name} {step}, batch {size}, {config.model.dtype}"
    return Planned(what, size, lowered, foreseen)


def _lower_part(
    step: str, built: Programs, teacher: TeacherView | None, params: Tree, batch: dict[str, Any]
) -> Lowered:
    """Lower one of the programs that a step with kept labels consists of."""
    if teacher is None:
        raise ValueError(f"The step {step!r} is of experiments with a teacher.")
    steps, kept = built.steps, Kept.of(built.steps.config)
    prepare, answer = (
        cast(Wrapped, steps.preparing()),
        cast(Wrapped, steps.answering(teacher, kept)),
    )
    if step == "prepare":
        return prepare.lower(batch)
    rows = split_over_batch(steps.mesh)
    example = _placed(jax.eval_shape(prepare, batch), rows)
    if step == "answer":
        return answer.lower(params, example.images)
    labels = _placed(jax.eval_shape(answer, params, example.images), rows)
    learn = cast(Wrapped, steps.learning(kept))
    return learn.lower(built.abstract_state, example, labels)


def _lower_evaluation(built: Programs, batch: dict[str, Any]) -> Lowered:
    state = built.abstract_state
    mask = jax.ShapeDtypeStruct(batch["label"].shape, bool, sharding=batch["label"].sharding)
    arrays = (state["params"], state["batch_stats"])
    return cast(Wrapped, built.eval_step).lower(*arrays, batch | {"mask": mask})


def _teacher(config: Config) -> tuple[TeacherView | None, Tree]:
    """Return the teacher that is named, without weights."""
    if config.distillation.kind == "none":
        return None, {}
    options, student = config.teacher, config.model
    size = student.image_size if options.image_size == (0, 0) else options.image_size
    function, params = programs.frozen(
        options.name, options.dtype, num_classes=student.num_classes, image_size=size
    )
    colours = (config.augment.mean, config.augment.std)
    shown = (options.mean or colours[0], options.std or colours[1])
    return TeacherView(function, colours, shown, size), jax.eval_shape(params)


def _batch(config: Config, size: int, mesh: Mesh, *numbers: str) -> dict[str, Any]:
    _check_batch(size, mesh)
    rows = split_over_batch(mesh)
    image = jax.ShapeDtypeStruct((size, *config.model.image_size, 3), jnp.uint8, sharding=rows)
    number = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=rows)
    return {"image": image} | dict.fromkeys(numbers, number)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: _shape(leaf, sharding), tree)


def _shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_batch(size: int, mesh: Mesh) -> None:
    """Raise ValueError if a batch cannot be split over the devices."""
    if size % mesh.size:
        raise ValueError(f"A batch of {size} images cannot be split over {mesh.size} devices.")


def check_experiment(config: Config) -> None:
    """Raise ValueError if a model is not registered."""
    model_spec(config.model.name)
    if config.distillation.kind != "none":
        model_spec(config.teacher.name)
