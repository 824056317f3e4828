"""The train step compiled for a mesh: with the teacher inside, with its labels kept, or given."""

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from deit_jax.models.functional import ModelFunction
from deit_jax.schema import Config
from deit_jax.sharding import replicated, split_over_batch
from deit_jax.training.distillation.labels import Kept, KeptAnswers
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.step import LabellingStep, TrainStep, make_labelling_step, make_train_step


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
    """

    student: ModelFunction
    optimizer: optax.GradientTransformation
    config: Config
    mesh: Mesh
    steps_per_epoch: float
    options: dict[str, Any] | None

    def asking(self, teacher: TeacherView | None) -> TrainStep:
        """Return `step(state, teacher_params, batch) -> state`."""
        kept = Kept.of(self.config)
        # Otherwise what would be kept of an answer is all that the loss needs of it.
        step = self._make(make_train_step, teacher, kept if kept.top else None)
        everywhere, rows = replicated(self.mesh), split_over_batch(self.mesh)
        return self._jit(step, (everywhere, everywhere, rows), everywhere)

    def labelling(self, teacher: TeacherView, kept: Kept) -> LabellingStep:
        """Return `step(state, teacher_params, batch) -> (state, labels)`."""
        step = self._make(make_labelling_step, teacher, kept)
        everywhere, rows = replicated(self.mesh), split_over_batch(self.mesh)
        return self._jit(step, (everywhere, everywhere, rows), (everywhere, rows))

    def reading(self, kept: Kept) -> TrainStep:
        """Return `step(state, labels, batch) -> state`."""
        step = self._make(make_train_step, KeptAnswers(kept), None)
        everywhere, rows = replicated(self.mesh), split_over_batch(self.mesh)
        return self._jit(step, (everywhere, rows, rows), everywhere)

    def _make(self, make: Any, teacher: Any, kept: Kept | None) -> Any:
        return make(
            self.student,
            teacher,
            self.optimizer,
            self.config,
            steps_per_epoch=self.steps_per_epoch,
            sharding=split_over_batch(self.mesh),
            kept=kept,
        )

    def _jit(self, step: Any, inputs: Any, outputs: Any) -> Any:
        return jax.jit(
            step,
            in_shardings=inputs,
            out_shardings=outputs,
            donate_argnums=0,
            compiler_options=self.options,
        )
