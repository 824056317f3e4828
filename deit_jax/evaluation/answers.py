"""What a model answers to every image of a split, and how sure it is: confusion and mistakes."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Shaped, UInt8

from deit_jax.augment.normalise import to_input
from deit_jax.data.class_mapping import SAME_CLASSES, ClassMapping
from deit_jax.data.images.crop import evaluation_view
from deit_jax.data.source import Source
from deit_jax.data.stream.loader import EvalInput, eval_batches
from deit_jax.data.stream.read_or_replace import read_record
from deit_jax.evaluation.metrics import Answers, answers_of, by_head
from deit_jax.evaluation.subjects import Subject
from deit_jax.trees import Tree


class HeadAnswers(NamedTuple):
    """Of one head.

    Attributes:
        answers: classes, `UNREAD` or `NO_CLASS`.
        confidence: probability of each answer.
    """

    answers: Answers
    confidence: Float[np.ndarray, " images"]


@dataclass(frozen=True)
class Mistake:
    """An image that a model answers wrongly.

    Attributes:
        name: of the record.
        pixels: as the model sees it, without the normalisation.
        label: the true class.
        answer: the model's.
        confidence: probability that it gives to it.
        index: of the image in its split.
    """

    name: str
    pixels: UInt8[np.ndarray, "height width 3"]
    label: int
    answer: int
    confidence: float
    index: int


def answer_all(
    subject: Subject, source: Source, *, mapping: ClassMapping = SAME_CLASSES
) -> dict[str, HeadAnswers]:
    """Return what each head ("class", "distillation", "fused") answers to all images, in order.

    Args:
        subject: the model.
        source: labelled images.
        mapping: of its classes to the source's, from `map_classes`; answers are in the source's.

    Raises:
        ValueError: images cannot be prepared as its weights want them.
    """
    shown = subject.preprocessing.require()

    @jax.jit
    def step(
        params: Tree, batch_stats: Tree, batch: Mapping[str, Shaped[Array, "batch ..."]]
    ) -> dict[str, tuple[Int32[Array, " batch"], Float[Array, " batch"]]]:
        images = to_input(batch["image"], shown.mean, shown.std)
        logits, _ = subject.function.head_logits(params, batch_stats, images)
        found = {}
        for head, values in by_head(logits, subject.fusion, mapping.classes).items():
            sure = jax.nn.softmax(values).max(-1)
            confidence = jnp.where(jnp.isnan(values).any(-1), 0.0, sure)
            found[head] = answers_of(values, batch["mask"]), confidence
        return found

    options = EvalInput(
        image_size=subject.image_size,
        batch_size=min(subject.batch_size, len(source)),
        view=shown.view,
    )
    rows: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    with contextlib.closing(eval_batches(source, options)) as batches:
        for batch in batches:
            found = jax.device_get(step(subject.params, subject.batch_stats, batch))
            for head, pair in found.items():
                rows.setdefault(head, []).append(pair)
    return {
        head: HeadAnswers(
            *(np.concatenate(part)[: len(source)] for part in zip(*pairs, strict=True))
        )
        for head, pairs in rows.items()
    }


def confusion(labels: Answers, answers: Answers, classes: int) -> Int[np.ndarray, "true answered"]:
    """Count images by true and answered class; those without an answer are not counted."""
    counted = answers >= 0
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels[counted], answers[counted]), 1)
    return table


def worst_mistakes(
    subject: Subject, source: Source, found: HeadAnswers, most: int = 12
) -> list[Mistake]:
    """Return the wrong answers that a model is surest of, the surest first."""
    labels = np.asarray(source.labels)
    wrong = np.flatnonzero((found.answers >= 0) & (found.answers != labels))
    order = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:most]
    mistakes = []
    for index in order.tolist():
        record, pixels, _ = read_record(source, index)
        view = evaluation_view(pixels, subject.image_size, subject.preprocessing.view)
        answer, sure = int(found.answers[index]), float(found.confidence[index])
        mistakes.append(Mistake(record.name, view, int(labels[index]), answer, sure, index))
    return mistakes
