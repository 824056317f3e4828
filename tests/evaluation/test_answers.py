"""Answers against NumPy and scikit-learn, of a network that says what its first pixels are."""

import jax.numpy as jnp
import numpy as np

from deit_jax.data.class_mapping import ClassMapping
from deit_jax.data.source import ArraySource
from deit_jax.evaluation.answers import answer_all, confusion, worst_mistakes
from deit_jax.evaluation.metrics import NO_CLASS, UNREAD
from deit_jax.evaluation.subjects import Subject
from deit_jax.preprocessing import EvalView, Preprocessing

CLASSES = 5


class Pixels:
    """Logits are the first pixels of the first two rows, not a number where the first is white."""

    def head_logits(self, params, batch_stats, images):
        first, second = (8 * images[:, row, :CLASSES, 0] for row in (0, 1))
        return (jnp.where(images[:, :1, 0, 0] < 1, first, jnp.nan), second), batch_stats


def subject(batch_size=4):
    return Subject(
        "here", "pixels", "raw", Pixels(), {}, {}, CLASSES, (), (8, 8),
        Preprocessing(EvalView.keeping(1.0), (0.0,) * 3, (1.0,) * 3, assumed=()),
        batch_size=batch_size,
    )  # fmt: skip


def split(images=11, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 250, (images, 8, 8, 3), dtype=np.uint8)
    names = [f"<{n}>" for n in range(CLASSES)]
    return ArraySource("split", pixels, rng.integers(0, CLASSES, images), names)


def test_answers_and_confidence_are_those_of_numpy_in_the_order_of_the_split():
    from scipy.special import softmax

    source = split()
    found = answer_all(subject(), source)
    values = 8 * source.images[:, :2, :CLASSES, 0].astype(np.float64) / 255
    heads = {"class": values[:, 0], "distillation": values[:, 1], "fused": values.mean(1)}
    assert list(found) == list(heads)
    for head, logits in heads.items():
        np.testing.assert_array_equal(found[head].answers, logits.argmax(-1))
        expected = softmax(logits, axis=-1).max(-1)
        np.testing.assert_allclose(found[head].confidence, expected, rtol=1e-5)


def test_classes_in_another_order_are_answered_as_the_datas():
    order = (3, 1, 4, 0, 2)
    mappings = (ClassMapping(classes) for classes in ((), order))
    plain, mapped = (answer_all(subject(), split(), mapping=one)["class"] for one in mappings)
    np.testing.assert_array_equal(np.asarray(order)[mapped.answers], plain.answers)
    np.testing.assert_allclose(mapped.confidence, plain.confidence, rtol=1e-6)


def test_no_numbers_are_no_answer_and_no_mistake():
    source = split()
    source.images[3, 0, 0] = 255
    found = answer_all(subject(), source)["class"]
    assert found.answers[3] == NO_CLASS and found.confidence[3] == 0
    assert 3 not in [mistake.index for mistake in worst_mistakes(subject(), source, found)]
    assert confusion(source.labels, found.answers, CLASSES).sum() == 10


def test_confusion_is_scikit_learns():
    # Takes a second to import, which other test processes are spared.
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(1)
    labels, answers = rng.integers(0, CLASSES, (2, 300)).astype(np.int32)
    expected = confusion_matrix(labels, answers, labels=range(CLASSES))
    np.testing.assert_array_equal(confusion(labels, answers, CLASSES), expected)
    answers[:7] = UNREAD
    expected = confusion_matrix(labels[7:], answers[7:], labels=range(CLASSES))
    np.testing.assert_array_equal(confusion(labels, answers, CLASSES), expected)


def test_the_surest_mistakes_come_first_with_their_pixels():
    source = split(40)
    found = answer_all(subject(), source)["fused"]
    mistakes = worst_mistakes(subject(), source, found, most=6)
    wrong = [n for n in range(40) if found.answers[n] != source.labels[n]]
    wrong.sort(key=lambda n: -found.confidence[n])
    assert [mistake.index for mistake in mistakes] == wrong[:6]
    for mistake in mistakes:
        np.testing.assert_array_equal(mistake.pixels, source.images[mistake.index])
        assert mistake.name == f"split[{mistake.index}]"
        assert mistake.label == source.labels[mistake.index] != mistake.answer
