"""Disagreement and ReaL accuracy against counting image by image."""

import json

import numpy as np
import pytest
from rich.console import Console

from deit_jax.data.source import ArraySource
from deit_jax.evaluation.agreement import disagreement
from deit_jax.evaluation.metrics import NO_CLASS, UNREAD
from deit_jax.evaluation.real import match, real_accuracy
from deit_jax.reports.agreement import show_disagreement, write


def random_answers(count=57, classes=4):
    rng = np.random.default_rng(0)
    answers = {name: rng.integers(0, classes, count).astype(np.int32) for name in "abc"}
    answers["b"][[3, 10]] = UNREAD
    answers["c"][[10, 11]] = NO_CLASS
    return answers


def test_every_pair_is_counted_on_the_images_that_all_have_read():
    answers = random_answers()
    result = disagreement(answers)
    rows = [i for i in range(57) if i not in (3, 10)]
    assert result.names == ("a", "b", "c") and result.images == 55
    for i, one in enumerate("abc"):
        for j, other in enumerate("abc"):
            expected = sum(answers[one][r] != answers[other][r] for r in rows) / 55
            assert result.fractions[i, j] == expected


@pytest.mark.usefixtures("unchecked_shapes")
def test_different_images_are_no_comparison():
    with pytest.raises(ValueError, match="different images"):
        disagreement({"a": np.zeros(3, np.int32), "b": np.zeros(4, np.int32)})
    with pytest.raises(ValueError, match="no image"):
        disagreement({"a": np.array([0, UNREAD]), "b": np.array([UNREAD, 0])})


def test_table_and_picture(tmp_path, capsys):
    result = disagreement(random_answers())
    show_disagreement(result, Console())
    printed = capsys.readouterr().out
    assert "| (2) b" in printed and "55 images" in printed
    text, picture = write(result, tmp_path / "out")
    assert f"{result.fractions[0, 1]:.3f}" in text.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


class Named(ArraySource):
    """Images with the names that they have in ImageNet."""

    def __init__(self, names):
        super().__init__("val", np.zeros((len(names), 2, 2, 3), np.uint8), [0] * len(names), "ab")
        self.names = names

    def __getitem__(self, index):
        return super().__getitem__(index)._replace(name=self.names[index])


def test_real_labels_go_by_the_number_in_the_name():
    real = [frozenset({i}) for i in range(5)]
    # Sorted by class, as a folder is.
    names = [f"n01440764/ILSVRC2012_val_{n:08}.JPEG" for n in (4, 1, 5)]
    found, note = match(Named(names), real)
    assert found == [{3}, {0}, {4}] and "numbers" in note
    with pytest.raises(ValueError, match="1 to 3"):
        match(Named(names), real[:3])
    with pytest.raises(ValueError, match="is no validation image"):
        match(Named([*names, "other.JPEG"]), real)


def test_without_numbers_they_go_by_order():
    real = [frozenset({0}), frozenset({1, 2})]
    found, note = match(Named(["x", "y"]), real)
    assert found == real and "by their order" in note
    with pytest.raises(ValueError, match="1 images without the number"):
        match(Named(["x"]), real)


def test_an_answer_is_right_if_it_is_one_of_the_labels():
    answers = random_answers()
    rng = np.random.default_rng(1)
    labels = [frozenset(rng.integers(0, 4, rng.integers(0, 3)).tolist()) for _ in range(57)]
    assert frozenset() in labels
    accuracy, images = real_accuracy(answers, labels)
    rows = [i for i in range(57) if labels[i] and i not in (3, 10)]
    assert images == len(rows)
    for name, values in answers.items():
        hits = sum(int(values[row]) in labels[row] for row in rows)
        assert accuracy[name] == pytest.approx(100 * hits / len(rows), abs=1e-9)
    assert json.dumps(accuracy)
    with pytest.raises(ValueError, match="No image"):
        real_accuracy(answers, [frozenset()] * 57)
