"""Splits and parts of them as TensorFlow Datasets names them, such as "train[:10%]+test"."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_PART: Final = re.compile(r"(?P<split>[\w-]+)(\[(?P<selector>[\w%:.-]+)\])?")
_BOUND: Final = re.compile(r"((?P<value>-?[\d_.]+)(?P<unit>%|shard)?)?")

ALL: Final = "all"
"""In place of a split's name: all splits, one after the other."""


class Slice(NamedTuple):
    """A part of one split.

    Attributes:
        split: its name.
        start: of the part; None is the beginning. Negative values count from the end.
        stop: likewise, not included; None is the end.
        unit: of both: "%" of the records, "shard" (a file), or "" for records.
    """

    split: str
    start: float | None = None
    stop: float | None = None
    unit: str = ""

    def records(self, lengths: Sequence[int]) -> range:
        """Return the numbers of its records in a split whose files hold so many.

        Percentages are rounded to the nearest record, halves to the even one, which is the rule
        "closest", the default of TensorFlow Datasets.

        Raises:
            ValueError: if the split has fewer records.
        """
        count = sum(lengths)
        start = 0 if self.start is None else self._record(self.start, lengths)
        if self.stop is None:
            stop = count
        elif self.unit == "shard" and self.stop <= 0:
            # A number of files: none of them is not the same as all, as with records.
            stop = self._record(len(lengths) + self.stop, lengths)
        else:
            stop = self._record(self.stop, lengths)
        if max(abs(start), abs(stop)) > count:
            raise ValueError(
                f"{self.split!r} has {count:,} records, fewer than the slice {start}:{stop} needs."
            )
        start, stop = (value + count if value < 0 else value for value in (start, stop))
        return range(start, max(start, stop))

    def _record(self, bound: float, lengths: Sequence[int]) -> int:
        if self.unit == "%":
            return round(bound * sum(lengths) / 100.0)
        return sum(lengths[: int(bound)]) if self.unit == "shard" else int(bound)


def parse_split(spec: str) -> list[Slice]:
    """Return the parts of which a split is put together, in this order.

    Args:
        spec: a split ("train"), a slice of it by records ("train[100:200]"), percentage
            ("train[:10%]", "train[-12.5%:]") or file ("train[2shard]", "train[1shard:]"), or
            several of them with "+" in between. `ALL` cannot be sliced.

    Raises:
        ValueError: if it is none of these.

    Source: tensorflow_datasets/core/splits.py.
    """
    try:
        return [_parse_part(part) for part in re.split(r"\s*\+\s*", spec)]
    except ValueError as error:
        raise ValueError(
            f"{spec!r} is no split: write train, train[100:200], train[:10%], train[2shard:], or "
            "several with + in between."
        ) from error


def _parse_part(text: str) -> Slice:
    part = _PART.fullmatch(text)
    if part is None:
        raise ValueError(text)
    selector = part["selector"]
    if selector is None:
        return Slice(part["split"])
    bounds = [_BOUND.fullmatch(bound) for bound in selector.split(":")]
    found = [bound for bound in bounds if bound is not None]
    if part["split"] == ALL or len(found) != len(bounds) or not any(b[0] for b in found):
        raise ValueError(text)
    unit = next((bound["unit"] for bound in found if bound["unit"]), "")
    number = float if unit == "%" else int
    values = [None if bound["value"] is None else number(bound["value"]) for bound in found]
    if unit == "%" and any(abs(value) > 100 for value in values if value is not None):
        raise ValueError(text)
    match values:
        case [int(single)] if unit == "shard":
            return Slice(part["split"], single, single + 1, unit)
        case [start, stop]:
            return Slice(part["split"], start, stop, unit)
    raise ValueError(text)
