"""What is compiled for a run: how its state begins, its train step and its evaluation step.

Nothing here needs data, weights or the devices themselves: only what the mesh says of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deit_jax.devices import compiler_options
from deit_jax.evaluation.metrics import EvalStep, make_eval_step
from deit_jax.models.functional import Builder, abstract
from deit_jax.models.registry import model_builder
from deit_jax.schema import Config
from deit_jax.sharding import platform_of, state_shardings
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.freezing import trainable
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import TrainState, create_state
from deit_jax.training.step import TrainStep
from deit_jax.training.step_programs import StepPrograms


@dataclass(frozen=True)
class Programs:
    """Functions under `jax.jit`, or made of such, not compiled yet.

    Attributes:
        steps: makes the train step, or its parts.
        train_step: from state, teacher's parameters and batch to the next state.
        eval_step: from `make_eval_step`.
        create_state: from a key and loaded weights (or an empty dict) to the state of step 0.
        abstract_state: its shapes and shardings.
        has_distillation_head: whether the student has one.
    """

    steps: StepPrograms
    train_step: TrainStep
    eval_step: EvalStep
    create_state: Callable[..., TrainState]
    abstract_state: TrainState
    has_distillation_head: bool


def build_programs(
    config: Config,
    mesh: Mesh,
    teacher: TeacherView | None,
    *,
    steps_per_epoch: float,
    kernel_choices: Path | None = None,
) -> Programs:
    """Put the programs of a run together.

    Args:
        config: the whole configuration.
        mesh: devices, which may be elsewhere.
        teacher: how it sees the student's images; None without one.
        steps_per_epoch: for the schedule; need not be whole.
        kernel_choices: for `training.repeatable`, see `compiler_options`.
    """
    build = student_builder(config)
    student, params, _ = abstract(build)
    remat = config.training.remat == "blocks"
    options = compiler_options(platform_of(mesh), kernel_choices=kernel_choices, remat=remat)
    optimizer = make_optimizer(config.optimizer, params, trainable(params, config))
    create = partial(create_state, build, optimizer, ema=config.ema.decay > 0)
    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings = state_shardings(shapes, mesh)
    steps = StepPrograms(student, optimizer, config, mesh, steps_per_epoch, options, shardings)
    eval_step = make_eval_step(
        student,
        mean=config.augment.mean,
        std=config.augment.std,
        fusion=config.evaluation.fusion,
        mesh=mesh,
        options=options,
    )
    abstract_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    return Programs(
        steps=steps,
        train_step=steps.train_step(teacher),
        eval_step=eval_step,
        create_state=jax.jit(create, out_shardings=shardings, compiler_options=options),
        abstract_state=abstract_state,
        has_distillation_head="head_dist" in params,
    )


def student_builder(config: Config) -> Builder:
    """Return what makes the network that is trained."""
    model = config.model
    return model_builder(
        model.name,
        num_classes=model.num_classes,
        image_size=model.image_size,
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        num_heads=model.num_heads,
        dtype=jnp.dtype(model.dtype),
        residual_dtype=jnp.dtype(model.residual_dtype),
        attention="recompute" if config.training.repeatable else "auto",
        remat=config.training.remat == "blocks",
        fused_kernels=model.fused_kernels,
    )
