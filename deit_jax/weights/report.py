"""What became of every array when weights were loaded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deit_jax.tables import Column, markdown_table

Fate = Literal["used", "resized", "re-initialised", "left over"]

LOAD_COLUMNS = [Column(heading) for heading in ("array", "shape", "what became of it", "why")]


@dataclass(frozen=True)
class Row:
    """One array of the model, or a tensor of the file that has no place in it.

    Attributes:
        name: dotted path in the model, or the file's name of what is left over.
        shape: in the model, or in the file.
        fate: what became of it.
        note: why, where it is not simply used.
    """

    name: str
    shape: tuple[int, ...]
    fate: Fate
    note: str = ""


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where; nothing is ever skipped without a row.

    Attributes:
        source: the file or directory.
        rows: one for each array and each tensor left over.
        notes: sentences about the source: its format, verification, published accuracy.
    """

    source: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def count(self, fate: Fate) -> int:
        """Return how many arrays met this fate."""
        return sum(row.fate == fate for row in self.rows)

    @property
    def warning(self) -> str:
        """A sentence about arrays that hold no loaded values; empty if there are none."""
        fresh = [row for row in self.rows if row.fate == "re-initialised"]
        if not fresh:
            return ""
        listed = ", ".join(name for name, _ in _alike(fresh))
        reasons = "; ".join(dict.fromkeys(row.note for row in fresh))
        return (
            f"{len(fresh)} arrays were NOT loaded from {self.source} and keep their fresh "
            f"initialisation: {listed} ({reasons})."
        )

    def cells(self) -> list[tuple[str, str, str, str]]:
        """Rows of a table: arrays, shape, fate, note.

        Arrays simply used share a row by module; others of one fate and reason, if their names
        differ in numbers alone (`blocks.*.norm.weight`).
        """
        groups: dict[str, list[Row]] = {}
        special: dict[tuple[Fate, str], list[Row]] = {}
        for row in self.rows:
            if row.fate == "used" and not row.note:
                groups.setdefault(row.name.split(".")[0], []).append(row)
            else:
                special.setdefault((row.fate, row.note), []).append(row)
        used = [
            (members[0].name, _shape(members[0].shape), "used", "")
            if len(members) == 1
            else (f"{module}.*", f"{len(members)} arrays", "used", "")
            for module, members in groups.items()
        ]
        return used + [
            (name, shape, fate, note)
            for (fate, note), rows in special.items()
            for name, shape in _alike(rows)
        ]

    def table(self) -> str:
        """Return the table as text, with the notes and the warning below it."""
        table = markdown_table(LOAD_COLUMNS, self.cells())
        warning = [self.warning] if self.warning else []
        return "\n".join([f"Weights of {self.source}:", table, *self.notes, *warning])


def _alike(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Return name and shape of each row, one for all whose names differ in numbers alone."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(re.sub(r"\d+", "*", row.name), []).append(row)
    return [
        (members[0].name, _shape(members[0].shape))
        if len(members) == 1
        else (pattern, f"{len(members)} arrays")
        for pattern, members in groups.items()
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
