"""Computing a teacher's labels ahead of training: what its runs will ask, without a student."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import jax
import numpy as np
from ml_collections import ConfigDict

from deit_jax.data.identity import identity_of
from deit_jax.data.source import Source
from deit_jax.data.stream.loader import train_batches
from deit_jax.schema import Config
from deit_jax.sharding import create_mesh, put_batch, replicated
from deit_jax.training.distillation.labels import TeacherLabels
from deit_jax.training.distillation.open_labels import OpenLabels, open_labels
from deit_jax.training.distillation.teacher import Teacher
from deit_jax.training.learning_rate import steps_of_epoch, total_steps
from deit_jax.training.lessons import NewLabels
from deit_jax.training.programs import build_programs
from deit_jax.training.progress import Progress
from deit_jax.training.setup import open_train_source, train_input, with_classes

# What is lost at most when the process is killed.
_SECONDS_BETWEEN_WRITES: Final = 60.0


@dataclass(frozen=True)
class LabelledSteps:
    """What was done.

    Attributes:
        steps: that were asked for.
        computed: of how many of them labels were computed now; those of the others were there.
    """

    steps: range
    computed: int


def label(config: ConfigDict, epochs: tuple[float, float] | None = None) -> LabelledSteps:
    """Compute the labels that are missing from `config.teacher.labels`.

    Args:
        config: already validated, with a teacher.
        epochs: from which on, and before which one to stop, counted from 0; None for all of them.

    Raises:
        ValueError, FileNotFoundError: data or teacher are not what the configuration says, labels
            of another stream are there, or there are no such epochs.
        OSError: labels cannot be written, of a full disk for instance.
    """
    typed = Config.of(config)
    source = open_train_source(typed)
    typed = with_classes(typed, source)
    steps_per_epoch = steps_of_epoch(typed, len(source))
    steps = steps_of(epochs, typed, steps_per_epoch)
    labels = open_labels(typed, source, identity_of(source), steps)
    if not len(labels.missing):
        return LabelledSteps(steps, 0)
    new = NewLabels(labels.store, full_disk_ends=True)
    try:
        with Progress(len(labels.missing)) as progress:
            begun = written = time.monotonic()
            asked = _ask(typed, source, labels, steps_per_epoch)
            for count, (step, answers) in enumerate(asked, start=1):
                new.add(step, answers)
                now = time.monotonic()
                rate = count * typed.training.batch_size / (now - begun)
                progress.update(count, {"images_per_second": rate})
                if now - written > _SECONDS_BETWEEN_WRITES:
                    new.write()
                    written = now
    finally:
        # Of an interrupted one too: it goes on from there.
        new.save()
    return LabelledSteps(steps, len(labels.missing))


def steps_of(epochs: tuple[float, float] | None, config: Config, steps_per_epoch: float) -> range:
    """Return the steps of a stretch of epochs; those of stretches that adjoin adjoin too.

    Raises:
        ValueError: the run has no such epochs.
    """
    total = total_steps(config, steps_per_epoch)
    if epochs is None:
        return range(total)
    first, last = (min(total, round(epoch * steps_per_epoch)) for epoch in epochs)
    if first >= last:
        whole = total / steps_per_epoch
        raise ValueError(
            f"There is no step in the epochs {epochs[0]:g}:{epochs[1]:g} of a run of {whole:g}; "
            "they are counted from 0, and the last is not among them."
        )
    return range(first, last)


def _ask(
    config: Config, source: Source, labels: OpenLabels, steps_per_epoch: float
) -> Iterator[tuple[int, TeacherLabels]]:
    """Ask the teacher for what is missing; yield each step with its labels, on the devices."""
    assert isinstance(labels.teacher, Teacher)
    mesh = create_mesh()
    # Those of a run; nothing of its student is compiled.
    programs = build_programs(config, mesh, None, steps_per_epoch=steps_per_epoch).steps
    prepare = programs.preparing()
    answer = programs.answering(labels.teacher.function, labels.kept)
    params = jax.device_put(labels.teacher.params, replicated(mesh))
    for stretch in np.split(labels.missing, np.flatnonzero(np.diff(labels.missing) > 1) + 1):
        first, last = int(stretch[0]), int(stretch[-1]) + 1
        with train_batches(
            source,
            train_input(config),
            start_step=first,
            num_steps=last,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            for step, batch in enumerate(batches, start=first):
                yield step, answer(params, prepare(put_batch(batch, mesh)).images)
