"""How a configuration key is declared, and the one check of a value against its declaration."""

import dataclasses
import difflib
import math
import numbers
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Devices count in int32 and compute in float32.
_LARGEST: Final[dict[type, float]] = {int: 2**31 - 1, float: (2 - 2**-23) * 2.0**127}


@dataclass(frozen=True)
class Bounds:
    """What a number has to be, in words and as limits; `above` and `below` are not reached."""

    words: str
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def hold(self, value: float) -> bool:
        """Return whether a finite number is within them."""
        return self.least <= value <= self.most and self.above < value < self.below


POSITIVE = Bounds("positive", above=0)
NOT_NEGATIVE = Bounds("at least 0", least=0)
FRACTION = Bounds("between 0 and 1", least=0, most=1)
SHARE = Bounds("in (0, 1]", above=0, most=1)
BELOW_ONE = Bounds("at least 0 and below 1", least=0, below=1)
SEED = Bounds("at least 0 and below 2**64", least=0, below=2**64)
ANY = Bounds("a finite number")


@dataclass(frozen=True)
class Rule:
    """Which values a key may have.

    Attributes:
        kind: bool, int, float or str; of each element, where the value is a tuple.
        count: elements of the tuple; 0 where the value is no tuple.
        optional: whether () stands for "not used".
        bounds: of each number.
        choices: the only words; empty for any.
        pattern: of a text, with `words` for the error; "" for any.
        words: what to give instead of a wrong value, where the type and bounds do not say it.
        single: whether one number stands for the same number everywhere in the tuple.
        rising: "<" or "<=" between the two elements of a pair; "" for any.
        path: whether the text may be a path, in which a leading ~ is the home directory.
    """

    kind: type
    count: int = 0
    optional: bool = False
    bounds: Bounds = ANY
    choices: tuple[str, ...] = ()
    pattern: str = ""
    words: str = ""
    single: bool = False
    rising: str = ""
    path: bool = False


def key(default: Any, bounds: Bounds = ANY, **rule: Any) -> Any:
    """Declare a field: its default, and what of its `Rule` its type does not say."""
    return dataclasses.field(default=default, metadata={"bounds": bounds, **rule})


@dataclass(frozen=True)
class Options:
    """A group of keys. Whoever makes one, its values are checked and have the form of their keys.

    Raises:
        ValueError: a value is wrong; says in one sentence which.
    """

    def __post_init__(self) -> None:
        for name, rule in rules(type(self)).items():
            object.__setattr__(self, name, conform(name, getattr(self, name), rule))


def rules(group: Any, prefix: str = "") -> dict[str, Rule]:
    """Return the rule of every key of a class of fields, by dotted name."""
    found: dict[str, Rule] = {}
    types = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        annotation = types[field.name]
        if dataclasses.is_dataclass(annotation):
            found |= rules(annotation, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = _rule(annotation, field.metadata)
    return found


def _rule(annotation: Any, metadata: Mapping[str, Any]) -> Rule:
    """Put together what the type and the declaration of a field say."""
    # "tuple[float, float] | tuple[()]": () stands for "not used".
    union = typing.get_args(annotation) if typing.get_origin(annotation) is not tuple else ()
    elements = typing.get_args(union[0] if union else annotation)
    kind = elements[0] if elements else annotation
    return Rule(kind, len(elements), optional=bool(union), **metadata)


def conform(name: str, value: Any, rule: Rule) -> Any:
    """Return a value in the form of its key: a float where an int was given, tuples of lists.

    Args:
        name: for the error.
        value: anything.
        rule: of the key.

    Raises:
        ValueError: it has another type, shape or size than the key; says in one sentence which.
    """
    try:
        return _elements(value, rule) if rule.count else _scalar(value, rule)
    except ValueError as error:
        raise ValueError(f"{name} is {shown(value)}; {error}") from None


def _elements(value: Any, rule: Rule) -> tuple[Any, ...]:
    wrong = ValueError(f"give {rule.words}{', or () for none' * rule.optional}.")
    if isinstance(value, list | tuple):
        elements = tuple(value)
    else:
        elements = (value,) * (rule.count if rule.single else 1)
    if rule.optional and not elements:
        return elements
    if len(elements) != rule.count:
        raise wrong
    try:
        elements = tuple(_scalar(element, rule) for element in elements)
    except ValueError:
        raise wrong from None
    if rule.rising and not (
        elements[0] < elements[1] or (rule.rising == "<=" and elements[0] == elements[1])
    ):
        raise wrong
    return elements


def _scalar(value: Any, rule: Rule) -> Any:
    if rule.kind is str:
        return _text(value, rule)
    if rule.kind is not bool:
        return _number(value, rule)
    if not isinstance(value, bool):
        raise ValueError("give True or False.")
    return value


def _text(value: Any, rule: Rule) -> str:
    if rule.path and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if rule.choices and value not in rule.choices:
        near = difflib.get_close_matches(str(value), rule.choices, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"it must be one of {', '.join(rule.choices)}.{hint}")
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("give text.")
    if rule.pattern and not re.fullmatch(rule.pattern, value):
        raise ValueError(f"give {rule.words}.")
    return os.path.expanduser(value) if rule.path else value


def _number(value: Any, rule: Rule) -> int | float:
    whole = rule.kind is int
    # NumPy's numbers are these too; to Python True is one.
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if whole else numbers.Real
    ):
        raise ValueError(f"give a {'whole ' * whole}number.")
    try:
        number = rule.kind(value)
    except (OverflowError, ValueError):
        # Too large, or not a number at all.
        number = math.inf
    if not rule.bounds.hold(number) or number in (math.inf, -math.inf):
        raise ValueError(f"it must be {rule.bounds.words}.")
    if rule.bounds.below == math.inf and abs(number) > (limit := _LARGEST[rule.kind]):
        raise ValueError(f"it must be at most {limit:{',' if whole else '.3g'}}.")
    return number


def shown(value: Any) -> str:
    """Write a wrong value so that it fits into a sentence."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        # Python refuses to write integers of thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
