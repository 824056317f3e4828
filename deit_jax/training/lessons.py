"""A teacher that is asked once: its answers to a stream of batches are kept, and given again.

Which image every row of every batch shows, and how, follows from configuration, data and seed; so
does the teacher's answer. Where it is missing it is computed between preparing the images and
learning from them, and where it is there it is read from disk.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import numpy as np
from jax.experimental import multihost_utils

from deit_jax.runs.processes import from_first
from deit_jax.sharding import put_batch
from deit_jax.training.distillation.label_store import PRESENT, LabelStore
from deit_jax.training.distillation.labels import TeacherLabels
from deit_jax.training.distillation.open_labels import OpenLabels
from deit_jax.training.example import Batch
from deit_jax.training.state import TrainState
from deit_jax.training.step_programs import Answer, StepPrograms
from deit_jax.trees import Tree

_LOG = logging.getLogger("deit_jax")

# Answers are fetched when the device has long computed them, so that it is not waited for.
_PENDING: Final = 8

Begin = Callable[[], tuple[Answer, Tree]]


class NewLabels:
    """Labels on their way from the devices to the disk.

    Args:
        store: where they go.
        full_disk_ends: whether an error of writing is raised, or said and the labels let go of.
    """

    def __init__(self, store: LabelStore, *, full_disk_ends: bool):
        self._store, self._ends = store, full_disk_ends
        self._pending: deque[tuple[int, TeacherLabels]] = deque()

    def add(self, step: int, labels: TeacherLabels) -> None:
        """Take the labels of a step; on many processes, all of them at the same time."""
        self._pending.append((step, labels))
        if len(self._pending) > _PENDING:
            self._fetch()

    def save(self) -> None:
        """Put all of them on disk; on many processes, all of them call this at the same step.

        Raises:
            OSError: it cannot be written, and that ends it.
        """
        while self._pending:
            self._fetch()
        self.write()

    def write(self) -> None:
        """Put those on disk that the devices have long delivered.

        Raises:
            OSError: as `save`.
        """
        try:
            self._store.save()
        except OSError as error:
            if self._ends:
                raise
            _LOG.warning(
                "The latest labels of the teacher were not kept: %s: %s. Training goes on; whoever "
                "needs them computes them again.",
                error.filename or self._store.directory,
                error.strerror or error,
            )
            self._store.forget()

    def _fetch(self) -> None:
        step, labels = self._pending.popleft()
        whole = {name: _whole(array) for name, array in labels.items()}
        if jax.process_index() == 0:
            self._store.add(step, whole)
            if self._store.unsaved_parts > 1:
                self.write()


class Lessons:
    """Takes train steps with answers from disk, or from the teacher, which are then kept.

    Args:
        labels: of the steps of this run.
        programs: of this run.
        begin: loads the teacher, and puts its parameters on the devices; called when it is first
            needed.
    """

    def __init__(self, labels: OpenLabels, programs: StepPrograms, begin: Begin):
        self._labels, self._store = labels, labels.store
        self._mesh, self._begin = programs.mesh, begin
        self._prepare, self._learn = programs.preparing(), programs.learning(labels.kept)
        self._ask: tuple[Answer, Tree] | None = None
        self._new = NewLabels(labels.store, full_disk_ends=False)
        self._part: tuple[int, Mapping[str, np.ndarray]] | None = None
        self._counts = {"computed": 0, "read": 0}

    def take(self, step: int, state: TrainState, batch: Batch) -> TrainState:
        """Take the step of a position in the stream, counted from 0; return the state after it.

        Raises:
            ValueError: its answers are gone or damaged, and so is the teacher.
        """
        example = self._prepare(batch)
        kept = self._kept(step)
        self._counts["computed" if kept is None else "read"] += 1
        if kept is not None:
            return self._learn(state, example, put_batch(_local_rows(kept), self._mesh))
        answer, params = self._asked()
        labels = answer(params, example.images)
        self._new.add(step, labels)
        return self._learn(state, example, labels)

    def save(self) -> None:
        """Put the new answers on disk; on many processes, all of them call this at one step."""
        self._new.save()

    @property
    def record(self) -> dict[str, Any]:
        """Where labels are from, and of how many steps they were computed, or read, by this run."""
        return {"directory": str(self._store.directory.absolute()), **self._counts}

    def go_on_from(self, record: Mapping[str, Any]) -> None:
        """Count on from what the run had recorded."""
        self._counts.update({name: int(record.get(name, 0)) for name in self._counts})

    def outlook(self, steps: int) -> str:
        """Say how many of the steps to come have labels."""
        where, missing = self._store.directory, len(self._labels.missing)
        if not missing:
            return f"whose labels are all in {where}"
        return f"whose labels of {steps - missing:,} of {steps:,} steps are in {where}"

    def trace(self, state: TrainState, batch: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """Trace the programs that will be needed, which are then not traced again.

        Args:
            state: shapes of it.
            batch: likewise.
        """
        example = jax.eval_shape(self._prepare, batch)
        shapes = self._labels.kept.shapes(batch["label"].shape[0])
        labels = {name: jax.ShapeDtypeStruct(*like) for name, like in shapes.items()}
        jax.eval_shape(self._learn, state, example, labels)
        if len(self._labels.missing):
            answer, params = self._asked()
            jax.eval_shape(answer, params, example.images)

    def _asked(self) -> tuple[Answer, Tree]:
        """Return what asks the teacher, and its parameters."""
        if self._ask is None:
            self._ask = self._begin()
        return self._ask

    def _kept(self, step: int) -> dict[str, np.ndarray] | None:
        """Return the answers to a batch, or None; the same on all processes."""
        number, row = divmod(step, self._store.steps_per_part)
        if self._part is None or self._part[0] != number:
            first = jax.process_index() == 0
            part = self._store.part(number) if first else self._store.empty()
            self._part = number, from_first(part)
        arrays = self._part[1]
        if not arrays[PRESENT][row]:
            return None
        return {name: array[row] for name, array in arrays.items() if name != PRESENT}


def _local_rows(answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return this process's rows of a batch."""
    index, count = jax.process_index(), jax.process_count()
    rows = {name: len(array) // count for name, array in answers.items()}
    return {n: a[index * rows[n] : (index + 1) * rows[n]] for n, a in answers.items()}


def _whole(array: jax.Array) -> np.ndarray:
    """Return all rows of a batch, of all processes."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
