"""Classes of a model and of data: the same, in another order, others, or without names."""

import json

import pytest

from deit_jax.data.class_mapping import Classes, match_classes, read_mapping

PETS = ("cat", "cow", "dog")
NUMBERS = ("0", "1", "2")
WORDNET = ("n01440764", "n01443537", "n01484850")


def match(model, data, count=3):
    return match_classes(
        Classes("the model", len(model) or count, model), Classes("the data", len(data), data), "do"
    )


def test_the_same_names_need_no_mapping():
    assert match(PETS, PETS) == match(NUMBERS, NUMBERS) == ((), "")


@pytest.mark.parametrize(
    ("model", "data"),
    [(("dog", "cat", "cow"), PETS), (("0", "1", "10", "2"), ("0", "1", "2", "10"))],
)
def test_another_order_is_found_by_the_names(model, data):
    found = match(model, data)
    assert tuple(model[index] for index in found.classes) == data and "another order" in found.note


@pytest.mark.parametrize(
    ("model", "data", "note"),
    [
        ((), PETS, "the model has no names"),
        (PETS, NUMBERS, "the data has no names"),
        (PETS, WORDNET, "the data names its classes by WordNet's numbers"),
        (WORDNET, NUMBERS, "the data has no names"),
    ],
)
def test_without_names_only_the_number_is_compared_and_that_is_said(model, data, note):
    found = match(model, data)
    assert found.classes == () and found.note.startswith(note) and "only the number" in found.note
    with pytest.raises(ValueError, match=r"4 classes, the data 3; do\.$"):
        match_classes(
            Classes("x", 4, (*model, "z") if model else ()), Classes("the data", 3, data), "do"
        )


@pytest.mark.parametrize(
    "data", [("ant", "bee", "fly"), ("cat", "cow", "pig"), PETS[:2], (*PETS, "x")]
)
def test_other_classes_are_refused(data):
    with pytest.raises(ValueError, match=r"is in only one of them; do\.$"):
        match(PETS, data)


def test_names_that_occur_twice_cannot_be_matched_by_them():
    with pytest.raises(ValueError, match="not the same ones in the same order"):
        match(("crane", "dog", "crane"), ("dog", "crane", "crane"))


@pytest.mark.parametrize(
    "text",
    ["2 0 1", "[2, 0, 1]", '{"cow": 0, "dog": "b", "cat": "c"}', '{"cat":2,"cow":"a","dog":1}'],
)
def test_a_file_says_the_models_class_of_each(tmp_path, text):
    (tmp_path / "map").write_text(text)
    model, data = Classes("the model", 4, tuple("abcd")), Classes("the data", 3, PETS)
    assert read_mapping(tmp_path / "map", model, data, "--x").classes == (2, 0, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 1", "names 2 classes"),
        ("0 1 4", "0 to 3"),
        ("0 1 -1", "0 to 3"),
        ("a b c", "whole number"),
        (json.dumps({"cat": 0}), "'cow'"),
        ("[0, 1.5, 2]", r"1\.5 is none.* whole number"),
        ("[0, Infinity, 2]", "Infinity is none.* whole number"),
        ("[0, true, 2]", "true is none.* whole number"),
        ("\ufeff0 1 2", "whole number"),
        ("[" * 100_000, "whole number"),
        (json.dumps({"cat": 0, "cow": "?", "dog": 1}), r"'\?', which is no class of the model"),
        (json.dumps({"cat": 0, "cow": [1], "dog": 1}), "whole number"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, reason):
    (tmp_path / "map").write_text(text)
    model, data = Classes("the model", 4, tuple("abcd")), Classes("the data", 3, PETS)
    with pytest.raises(ValueError, match=reason):
        read_mapping(tmp_path / "map", model, data, "--x")
    with pytest.raises(FileNotFoundError, match=r"\(--x\)"):
        read_mapping(tmp_path / "none", model, data, "--x")


def test_a_file_that_is_no_utf8_is_refused_by_its_name(tmp_path):
    (tmp_path / "map").write_text("0 1 2", encoding="utf-16")
    with pytest.raises(ValueError, match=r"map does not hold class indices"):
        read_mapping(tmp_path / "map", Classes("m", 3), Classes("d", 3, PETS), "--x")
