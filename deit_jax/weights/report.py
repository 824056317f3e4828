"""What became of every array when weights were loaded."""

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
        listed = ", ".join(row.name for row in fresh)
        reasons = "; ".join(dict.fromkeys(row.note for row in fresh))
        return (
            f"{len(fresh)} arrays were NOT loaded from {self.source} and keep their fresh "
            f"initialisation: {listed} ({reasons})."
        )

    def cells(self) -> list[tuple[str, str, str, str]]:
        """Rows of a table: arrays, shape, fate, note. Arrays simply used share a row by module."""
        groups: dict[str, list[Row]] = {}
        special = []
        for row in self.rows:
            if row.fate == "used" and not row.note:
                groups.setdefault(row.name.split(".")[0], []).append(row)
            else:
                special.append((row.name, _shape(row.shape), row.fate, row.note))
        used = [
            (members[0].name, _shape(members[0].shape), "used", "")
            if len(members) == 1
            else (f"{module}.*", f"{len(members)} arrays", "used", "")
            for module, members in groups.items()
        ]
        return used + special

    def table(self) -> str:
        """Return the table as text, with the notes and the warning below it."""
        table = markdown_table(LOAD_COLUMNS, self.cells())
        warning = [self.warning] if self.warning else []
        return "\n".join([f"Weights of {self.source}:", table, *self.notes, *warning])


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
