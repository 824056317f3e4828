"""The lines of `metrics.jsonl`, checked as they are read; JAX is not needed for it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deit_jax.runs.json_shape import is_number
from deit_jax.runs.record import listed

SPLITS = ("train", "eval")


class Line(NamedTuple):
    """One measurement: its bytes without the end of the line, and what they say."""

    text: bytes
    row: dict[str, Any]


def read_lines(path: Path, needs: Sequence[str] = ()) -> list[Line]:
    """Read all measurements in the order of the file; none if there is no file.

    What a killed process, or one that is writing now, left of a last line is not among them.

    Args:
        path: of the file.
        needs: numbers that every line must have.

    Raises:
        ValueError: lines before the last one are damaged: their numbers are named.
    """
    texts = path.read_bytes().splitlines() if path.is_file() else []
    lines, damaged = [], []
    for number, text in enumerate(texts, start=1):
        if (row := _row(text)) and all(row.get(name) is not None for name in needs):
            lines.append(Line(text, row))
        elif number < len(texts):
            damaged.append(number)
    if damaged:
        which = f"line{'s' if len(damaged) > 1 else ''} {listed(damaged)}"
        raise ValueError(
            f"{path} is damaged in {which} of {len(texts)}; put back a copy of the file, or delete "
            "what is damaged and do without it."
        )
    return lines


def _row(text: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None if it is no measurement."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("split") not in SPLITS:
        return None
    values = [value for name, value in row.items() if name != "split"]
    # What was not finite is null.
    numbers = all(value is None or is_number(value) for value in values)
    step = row.get("step")
    return row if numbers and isinstance(step, int) and step >= 0 else None
