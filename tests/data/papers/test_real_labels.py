"""ReaL's labels and what is refused."""

import json

import pytest

from deit_jax.data.papers.real_labels import read_real_labels


def test_labels_by_image(tmp_path):
    path = tmp_path / "real.json"
    content = [[65], [970, 795], [], [0, 999, 0]]
    path.write_text(json.dumps(content))
    expected = [frozenset({65}), frozenset({970, 795}), frozenset(), frozenset({0, 999})]
    assert read_real_labels(path) == expected
    assert read_real_labels(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[1], [1000]]", "entry 1 is .1000., not a list of classes from 0 to 999"),
        ("[[1], [-1]]", "entry 1"),
        ("[[1], [true]]", "entry 1"),
        ("[[1], 2]", "entry 1 is 2"),
        ("[[1], [1.0]]", "entry 1"),
        ("[]", "not a list"),
        ('{"a": [1]}', "not a list"),
        ("[[1], [2", "no JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "real.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_real_labels(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"real\.json"):
        read_real_labels(tmp_path / "real.json")
