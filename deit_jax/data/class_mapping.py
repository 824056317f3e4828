"""Which class of a model is which class of a data set: by their names, or as a file says."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from deit_jax.data.source import require_same_names


class ClassMapping(NamedTuple):
    """The model's class for each class of the data, () where they are the same; and a note."""

    classes: tuple[int, ...] = ()
    note: str = ""


_WORDNET = re.compile(r"n\d{8}")
SAME_CLASSES = ClassMapping()


class Classes(NamedTuple):
    """Classes and what to call their owner; `names` is empty where only their number is known."""

    owner: str
    number: int
    names: tuple[str, ...] = ()


def match_classes(model: Classes, data: Classes, remedy: str) -> ClassMapping:
    """Match classes by their names; in another order they are found nevertheless.

    Names that merely count from 0 say nothing, and WordNet's numbers nothing about names for
    people. The number of classes is then all that can be compared, and the note says so.

    Args:
        model: who answers.
        data: who asks.
        remedy: what the user can do where they do not match, to end a sentence.

    Raises:
        ValueError: they are other classes, or not as many.
    """
    if model.names == data.names and len(data.names) == model.number:
        return SAME_CLASSES
    index_of = {name: index for index, name in enumerate(model.names)}
    unique = len(index_of) == len(model.names) == len(data.names)
    if model.names and unique and index_of.keys() == set(data.names):
        note = f"{model.owner} has the classes of {data.owner} in another order; by their names."
        return ClassMapping(tuple(index_of[name] for name in data.names), note)
    if reason := _incomparable(model, data):
        if model.number != data.number:
            raise ValueError(
                f"{model.owner} has {model.number} classes, {data.owner} {data.number}; {remedy}."
            )
        return ClassMapping((), f"{reason}: only the number of classes was compared.")
    try:
        require_same_names(model.owner, model.names, data.owner, data.names)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}; {remedy}.") from error
    return SAME_CLASSES


def read_mapping(path: str | Path, model: Classes, data: Classes, key: str) -> ClassMapping:
    """Read the model's class for each class of the data.

    Args:
        path: of a JSON list or plain numbers, separated by spaces or lines: the model's numbers
            in the order of the data's classes; or of a JSON object from the data's names to the
            model's names or numbers.
        model: who answers.
        data: who asks.
        key: option that names the file, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or not one of the model's classes for each.
    """
    values = _read(Path(path), data, key)
    known = {name: index for index, name in enumerate(model.names)}
    for value in values:
        if isinstance(value, str) and value not in known:
            raise ValueError(f"{path} names {value!r}, which is no class of {model.owner}.")
    classes = [known[value] if isinstance(value, str) else value for value in values]
    if len(classes) != data.number or not all(0 <= index < model.number for index in classes):
        numbers = [index for index in classes if index >= 0] or [0]
        raise ValueError(
            f"{path} names {len(classes)} classes between {min(numbers)} and {max(numbers)}; it "
            f"must name {data.number}, one for each class of {data.owner}: of {model.owner} those "
            f"from 0 to {model.number - 1}."
        )
    return ClassMapping(tuple(classes), f"Classes are those that {path} says.")


def _read(path: Path, data: Classes, key: str) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} ({key}).")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.split()
        if isinstance(content, dict):
            # Names of the model stay names.
            values = [content[name] for name in data.names]
            return [value if isinstance(value, str) else _whole(value) for value in values]
        return [_whole(value) for value in content]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} does not hold class indices ({error}); give one whole number for each class "
            f"of {data.owner}, or a JSON object with each of its names."
        ) from error


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{json.dumps(value)} is none")
    return int(value)


def _incomparable(model: Classes, data: Classes) -> str:
    """Say why names cannot be compared; "" if they can."""
    for side in (model, data):
        if all(name == str(index) for index, name in enumerate(side.names)):
            return f"{side.owner} has no names of classes"
    # Models of ImageNet are published with names for people, its data has those of WordNet.
    identifiers = [all(map(_WORDNET.fullmatch, side.names)) for side in (model, data)]
    if identifiers[0] != identifiers[1]:
        return f"{(model if identifiers[0] else data).owner} names its classes by WordNet's numbers"
    return ""
