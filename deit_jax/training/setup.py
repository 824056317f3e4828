"""Everything a run needs, built from its configuration before anything is compiled or written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deit_jax.augment.mixup_cutmix import group_size
from deit_jax.data.combined import fraction, keep_classes, subset
from deit_jax.data.identity import identity_of
from deit_jax.data.open import open_source
from deit_jax.data.source import Source, require_same_classes
from deit_jax.data.stream.loader import Batches, EvalInput, TrainInput, eval_batches, train_batches
from deit_jax.devices import memory_bytes
from deit_jax.evaluation.metrics import EvalStep
from deit_jax.preprocessing import EvalView
from deit_jax.schema import Config
from deit_jax.seeds import seed_key
from deit_jax.sharding import create_mesh, place
from deit_jax.training.distillation.open_labels import OpenLabels, open_labels, reload_teacher
from deit_jax.training.distillation.teacher import Teacher, load_teacher
from deit_jax.training.learning_rate import steps_of_epoch, total_steps
from deit_jax.training.lessons import Lessons
from deit_jax.training.memory import say_memory
from deit_jax.training.programs import build_programs
from deit_jax.training.state import TrainState
from deit_jax.training.step import TrainStep
from deit_jax.training.step_programs import Answer, StepPrograms
from deit_jax.trees import Tree
from deit_jax.weights.fit import Fitted


@dataclass(frozen=True)
class Setup:
    """The parts of a run; nothing in it changes while it trains.

    Attributes:
        teacher: None also where all of its labels are there.
        taught_by: what is recorded of the teacher, loaded or not: `Teacher.record`.
        lessons: takes the steps where the teacher's labels are kept.
        train_step: takes them where the teacher is inside, or there is none.
    """

    config: Config
    mesh: Mesh
    train_source: Source
    eval_source: Source
    train_input: TrainInput
    eval_input: EvalInput
    teacher: Teacher | None
    taught_by: dict[str, Any] | None
    lessons: Lessons | None
    train_step: TrainStep
    eval_step: EvalStep
    create_state: Callable[..., TrainState]
    abstract_state: TrainState
    has_distillation_head: bool
    steps_per_epoch: float
    total_steps: int

    @cached_property
    def memory(self) -> str:
        """A sentence about what is planned to be in each device's memory; see `say_memory`."""
        teacher = self.teacher.params if self.teacher else {}
        return say_memory(self.config, self.abstract_state, teacher, self.mesh, memory_bytes())

    def initial_state(self, weights: Fitted | None = None) -> TrainState:
        """Compute the state before the first step, placed on the mesh.

        Weights take the place of the initialisation, in the moving average too.
        """
        # Arguments of the compiled function, not constants in it.
        loaded = {"params": weights.params, "batch_stats": weights.batch_stats} if weights else {}
        return self.create_state(seed_key(self.config.seed), loaded)

    def train_batches(
        self, start_step: int, known_damaged: Iterable[int], *, left_out: int = 0
    ) -> Batches:
        """Open this process's part of the training stream, from a step to the end.

        Args:
            start_step: steps taken so far.
            known_damaged: numbers of records.
            left_out: batches of the stream that were read, but not for these steps.
        """
        return train_batches(
            self.train_source,
            self.train_input,
            start_step=start_step + left_out,
            num_steps=self.total_steps + left_out,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            known_damaged=known_damaged,
        )

    def eval_batches(self) -> Batches:
        """Open this process's part of the evaluation split."""
        return eval_batches(
            self.eval_source,
            self.eval_input,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @property
    def inference_head(self) -> str:
        """Name of the head whose accuracy is the model's."""
        return "fused" if self.has_distillation_head else "class"


def set_up(config: ConfigDict, kernel_choices: Path | None = None, *, start: int = 0) -> Setup:
    """Open the data, load the teacher and put the steps together.

    Args:
        config: already validated.
        kernel_choices: for `training.repeatable`, see `compiler_options`.
        start: steps that the run has taken already, for which no teacher's labels are needed.

    Raises:
        ValueError, FileNotFoundError: the data, the teacher or its labels are not what the
            configuration says.
    """
    return _assemble(Config.of(config), kernel_choices, start)


def _assemble(config: Config, kernel_choices: Path | None, start: int) -> Setup:
    mesh = create_mesh(config.mesh.fsdp)
    train_source, eval_source = _open_sources(config)
    config = with_classes(config, train_source)
    steps_per_epoch = steps_of_epoch(config, len(train_source))
    steps = total_steps(config, steps_per_epoch)
    labels = None
    if config.teacher.labels and config.distillation.kind != "none":
        labels = open_labels(config, train_source, identity_of(train_source), range(start, steps))
    teacher = labels.teacher if labels else load_teacher(config, train_source.class_names)
    programs = build_programs(
        config,
        mesh,
        teacher.function if teacher else None,
        steps_per_epoch=steps_per_epoch,
        kernel_choices=kernel_choices,
    )
    return Setup(
        config=config,
        mesh=mesh,
        train_source=train_source,
        eval_source=eval_source,
        train_input=train_input(config),
        eval_input=_eval_input(config),
        teacher=teacher,
        taught_by=labels.taught_by if labels else (teacher.record() if teacher else None),
        lessons=_lessons(labels, programs.steps, train_source) if labels else None,
        train_step=programs.train_step,
        eval_step=programs.eval_step,
        create_state=programs.create_state,
        abstract_state=programs.abstract_state,
        has_distillation_head=programs.has_distillation_head,
        steps_per_epoch=steps_per_epoch,
        total_steps=steps,
    )


def _lessons(labels: OpenLabels, programs: StepPrograms, source: Source) -> Lessons:
    """Let the steps of a run be taken with kept labels, and the teacher be loaded if need be."""

    def begin() -> tuple[Answer, Tree]:
        teacher = labels.teacher
        if teacher is None:
            teacher = reload_teacher(programs.config, source, labels.store.directory)
        params = place(teacher.params, programs.mesh)
        return programs.answering(teacher.function, labels.kept), params

    return Lessons(labels, programs, begin)


def open_train_source(config: Config) -> Source:
    """Open the training images that the configuration chooses.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: they are not there.
    """
    data = config.data
    source = keep_classes(open_source(data.source, data.train_split, data.directory), data.classes)
    return fraction(subset(source, data.train_images, config.seed), data.fraction, config.seed)


def _open_sources(config: Config) -> tuple[Source, Source]:
    data = config.data
    train = open_train_source(config)
    evaluation = keep_classes(
        open_source(data.source, data.eval_split, data.directory), data.classes
    )
    require_same_classes(train, evaluation)
    return train, evaluation


def with_classes(config: Config, source: Source) -> Config:
    """Return the configuration with a model of the classes of the data: counted, or checked.

    Raises:
        ValueError: it has others; says what to pass.
    """
    if config.model.num_classes == 0:
        return replace(config, model=replace(config.model, num_classes=source.num_classes))
    if source.num_classes != config.model.num_classes:
        raise ValueError(
            f"The data ({source.name}) has {source.num_classes} classes but "
            f"config.model.num_classes is {config.model.num_classes}; "
            f"pass --config.model.num_classes={source.num_classes}."
        )
    return config


def train_input(config: Config) -> TrainInput:
    """Return what the training stream is made by."""
    group = 0
    if config.mix.active and config.data.spread_copies:
        group = group_size(config.training.batch_size, config.mix.group)
    return TrainInput(
        image_size=config.model.image_size,
        batch_size=config.training.batch_size,
        data=config.data,
        mix_group=group,
        seed=config.seed,
    )


def _eval_input(config: Config) -> EvalInput:
    return EvalInput(
        image_size=config.model.image_size,
        batch_size=config.evaluation.batch_size,
        data=config.data,
        view=EvalView.keeping(config.data.eval_crop_ratio),
    )
