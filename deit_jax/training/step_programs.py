"""The train step compiled for a mesh: as one program, or in the parts that kept labels need.

Three parts, of which the first and the last are the same programs whether the teacher is asked or
its labels are read: what a student learns from kept labels cannot depend on who was asked when.
In one program the compiler may round what two networks read as it would not for one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from deit_jax.models.functional import ModelFunction
from deit_jax.schema import Config
from deit_jax.sharding import platform_of, split_over_batch
from deit_jax.training.distillation.labels import Kept, TeacherLabels
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.example import Batch, BatchImages, Example, ask, make_prepare, on_mesh
from deit_jax.training.state import TrainState
from deit_jax.training.step import TrainStep, make_train_step, make_update
from deit_jax.trees import Tree

Prepare = Callable[[Batch], Example]
Answer = Callable[[Tree, BatchImages], TeacherLabels]
Learn = Callable[[TrainState, Example, TeacherLabels], TrainState]


@dataclass(frozen=True)
class StepPrograms:
    """Compiles the train step of a run, when it is first called.

    Attributes:
        student: the model that is trained.
        optimizer: of it.
        config: of the run.
        mesh: that batches are split over.
        steps_per_epoch: need not be whole.
        options: for the compiler.
        state: sharding of each array of the state.
    """

    student: ModelFunction
    optimizer: optax.GradientTransformation
    config: Config
    mesh: Mesh
    steps_per_epoch: float
    options: dict[str, Any] | None
    state: Tree

    def train_step(self, teacher: TeacherView | None) -> TrainStep:
        """Return `step(state, teacher_params, batch) -> state`.

        Where the same bits are promised, on CPUs and with `training.repeatable`, a step with a
        teacher consists of the parts: a run with kept labels then ends as one without. Elsewhere
        it is one program.
        """
        promised = platform_of(self.mesh) == "cpu" or self.config.training.repeatable
        if teacher is None or not promised:
            return self.whole(teacher)
        kept = Kept.of(self.config)
        prepare, answer, learn = (
            self.preparing(),
            self.answering(teacher, kept),
            self.learning(kept),
        )

        def step(state: TrainState, teacher_params: Tree, batch: Batch) -> TrainState:
            example = prepare(batch)
            return learn(state, example, answer(teacher_params, example.images))

        return step

    def whole(self, teacher: TeacherView | None) -> TrainStep:
        """Return `step(state, teacher_params, batch) -> state` as one program."""
        step = make_train_step(
            self.student,
            teacher,
            self.optimizer,
            self.config,
            steps_per_epoch=self.steps_per_epoch,
            sharding=self._rows,
        )
        # Of the teacher's parameters: as they are placed.
        inputs = (self.state, None, self._rows)
        return self._jit(step, inputs, self.state, donate_argnums=0)

    def preparing(self) -> Prepare:
        """Return `prepare(batch) -> example`."""
        return self._jit(make_prepare(self.config, self._rows), (self._rows,), self._rows)

    def answering(self, teacher: TeacherView, kept: Kept) -> Answer:
        """Return `answer(teacher_params, images) -> labels`."""

        def answer(params: Tree, images: BatchImages) -> TeacherLabels:
            return kept.encode(ask(teacher, params, images))

        return self._jit(on_mesh(answer, self._rows), (None, self._rows), self._rows)

    def learning(self, kept: Kept) -> Learn:
        """Return `learn(state, example, labels) -> state`."""
        update = make_update(
            self.student, self.optimizer, self.config, self.steps_per_epoch, self._rows
        )

        def learn(state: TrainState, example: Example, labels: TeacherLabels) -> TrainState:
            return update(state, replace(example, teacher_logits=kept.decode(labels)))

        inputs = (self.state, self._rows, self._rows)
        return self._jit(learn, inputs, self.state, donate_argnums=0)

    @property
    def _rows(self) -> NamedSharding:
        return split_over_batch(self.mesh)

    def _jit(self, function: Any, inputs: Any, outputs: Any, **options: Any) -> Any:
        return jax.jit(
            function,
            in_shardings=inputs,
            out_shardings=outputs,
            compiler_options=self.options,
            **options,
        )
