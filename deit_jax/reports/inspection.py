"""What takes an experiment's weights and images to know: answers, mistakes, what was seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deit_jax.data.source import Source
from deit_jax.evaluation.agreement import Disagreement, disagreement
from deit_jax.evaluation.answers import HeadAnswers, Mistake, answer_all, worst_mistakes
from deit_jax.evaluation.metrics import Answers
from deit_jax.evaluation.subjects import (
    Place,
    choose_place,
    map_classes,
    open_place,
    read_subject,
)
from deit_jax.files import sentence
from deit_jax.reports.experiments import Experiment, taught
from deit_jax.reports.palette import HEAD_NAMES
from deit_jax.runs.history import RunRecord, WeightsKind
from deit_jax.sheets import SeenImages

EXPECTED = (ValueError, OSError, ModuleNotFoundError)
"""What is raised where data or weights are not there any more, or damaged."""

See = Callable[[RunRecord], SeenImages]


@dataclass(frozen=True)
class Answered:
    """What the newest checkpoint of a run answers on its evaluation split.

    Attributes:
        place: the split.
        class_names: of the data.
        labels: of its images.
        heads: answers by head.
        inference: the head that the model answers with.
        teacher: its answers, if there is one.
        teacher_name: of its model, and where its weights are.
        without_teacher: why there is none, a sentence, or "".
        mistakes: that it is surest of.
        step: of the checkpoint.
    """

    place: Place
    class_names: tuple[str, ...]
    labels: Answers
    heads: dict[str, HeadAnswers]
    inference: str
    teacher: HeadAnswers | None
    teacher_name: tuple[str, str]
    without_teacher: str
    mistakes: list[Mistake]
    step: int


@dataclass(frozen=True)
class Inspection:
    """Of an experiment's first run; a sentence in place of what cannot be known."""

    run: Path
    seen: SeenImages | str
    answered: Answered | str


class Inspector:
    """Looks into experiments; what several of them share is computed once.

    Args:
        weights: whose answers.
        see: returns training images of a run as its networks saw them.
        teacher: where the teacher of all is, if not where the configurations say.
        tell: is told what is done next.
    """

    def __init__(
        self, weights: WeightsKind, see: See, teacher: str = "", tell: Callable[[str], Any] = print
    ) -> None:
        self._weights, self._see, self._teacher, self._tell = weights, see, teacher, tell
        self._sources: dict[Place, Source] = {}
        self._answers: dict[tuple[str, ...], dict[str, HeadAnswers]] = {}

    def inspect(self, experiment: Experiment) -> Inspection:
        """Look into the first run of an experiment."""
        run = experiment.first
        self._tell(f"Looking at what {run.path} sees and answers ...")
        seen: SeenImages | str
        answered: Answered | str
        try:
            seen = self._see(run)
        except EXPECTED as error:
            seen = sentence(error)
        try:
            answered = self._answered(run)
        except EXPECTED as error:
            answered = sentence(error)
        return Inspection(run.path, seen, answered)

    def _answered(self, run: RunRecord) -> Answered:
        subject = read_subject(str(run.path), which=self._weights, checkpoint="latest")
        place = choose_place(subject.place, subject.path)
        if place not in self._sources:
            self._sources[place] = open_place(place)
        source = self._sources[place]
        heads = answer_all(subject, source, mapping=map_classes(subject, source))
        teacher, without = self._ask_teacher(run, place)
        return Answered(
            place,
            source.class_names,
            np.asarray(source.labels),
            heads,
            run.inference_head,
            teacher,
            (run.config["teacher"]["name"], self._teacher or run.config["teacher"]["weights"]),
            without,
            worst_mistakes(subject, source, heads[run.inference_head]),
            subject.step,
        )

    def _ask_teacher(self, run: RunRecord, place: Place) -> tuple[HeadAnswers | None, str]:
        """Return the teacher's answers on the same images, each shown as its weights want it."""
        if not taught(run):
            return None, ""
        options = run.config["teacher"]
        path = self._teacher or options["weights"]
        which, checkpoint = "ema" if options["ema"] else "raw", options["checkpoint"]
        key = (path, which, checkpoint, options["classes"], *map(str, place))
        source = self._sources[place]
        try:
            if key not in self._answers:
                step = int(checkpoint) if checkpoint.isdigit() else checkpoint
                subject = read_subject(path, which=which, checkpoint=step)
                mapping = map_classes(subject, source, options["classes"])
                self._answers[key] = answer_all(subject, source, mapping=mapping)
        except EXPECTED as error:
            return None, f"Without the teacher: {sentence(error)}"
        heads = self._answers[key]
        return heads.get("fused", heads["class"]), ""


def disagreement_of(
    students: Sequence[Experiment], inspections: Sequence[Inspection]
) -> tuple[Disagreement | None, list[str]]:
    """Compare the answers of labels, teachers and all heads to the same images (Table 4).

    Args:
        students: experiments.
        inspections: of these, in their order; more may follow.

    Returns:
        The table, None where nobody has answered; and names of experiments on other images, which
        are left out.
    """
    several = len({one.architecture for one in students}) > 1
    answered = {
        f"{one.label}, {one.model}" if several else one.label: found.answered
        for one, found in zip(students, inspections, strict=False)
        if isinstance(found.answered, Answered)
    }
    if not answered:
        return None, []
    first = next(iter(answered.values()))
    same = {label: found for label, found in answered.items() if found.place == first.place}
    answers: dict[str, Answers] = {"labels": first.labels}
    teachers = {found.teacher_name: found.teacher for found in same.values() if found.teacher}
    for (model, path), values in teachers.items():
        alone = [name for name, _ in teachers].count(model) == 1
        answers[f"teacher, {model}" if alone else f"teacher, {model} of {path}"] = values.answers
    for label, found in same.items():
        for head, values in found.heads.items():
            name = label if len(found.heads) == 1 else f"{label}, {HEAD_NAMES[head]}"
            answers[name] = values.answers
    return disagreement(answers), [label for label in answered if label not in same]
