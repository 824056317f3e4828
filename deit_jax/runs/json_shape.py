"""Whether what was read from JSON has the types that its reader counts on."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def misfits(value: Any, example: Any, name: str = "") -> Iterator[str]:
    """Yield one phrase for each value that is not of the type of its example.

    Only what both have is compared. Whole numbers may stand for numbers. A list of texts, or one
    whose example is empty, has any length; one of numbers has that of its example.

    Args:
        value: read from JSON.
        example: nested mappings, numbers, texts and sequences.
        name: dotted, of the value.
    """
    if hasattr(example, "items"):
        if not isinstance(value, Mapping):
            yield f"{name} is {_short(value)}, which is no group of values"
            return
        prefix = f"{name}." if name else ""
        for key in [key for key in example if key in value]:
            yield from misfits(value[key], example[key], f"{prefix}{key}")
    elif isinstance(example, tuple | list):
        yield from _sequence_misfits(value, example, name)
    elif not _is_like(value, type(example)):
        yield f"{name} is {_short(value)}, which is not {_KINDS[type(example)]}"


def _sequence_misfits(value: Any, example: tuple | list, name: str) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield f"{name} is {_short(value)}, which is no list"
        return
    numbers = not example or not isinstance(example[0], str | Mapping)
    if example and numbers and len(value) != len(example):
        yield f"{name} is {_short(value)}, which should have {len(example)} numbers"
        return
    for item in value:
        yield from misfits(item, example[0] if example else 0.0, name)


def is_number(value: Any) -> bool:
    """Return whether a value is a number that is finite in 64 bits; True and False are none."""
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and math.isfinite(value)


def _is_like(value: Any, kind: type) -> bool:
    if kind in (int, float) and not is_number(value):
        return False
    return kind is float or type(value) is kind


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
