"""What a comparison found: for the terminal and as JSON."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from deit_jax.parity.layers import Difference, Section
from deit_jax.reports.terminal import print_table, say
from deit_jax.tables import Column


@dataclass(frozen=True)
class Report:
    """A finished comparison.

    Attributes:
        model: registered name.
        weights: where they came from.
        ours: this implementation, with the versions it ran on.
        against: PyTorch's side, with its version.
        loaded: how the weights came into PyTorch's side.
        images: what both were shown.
        sections: what was compared, in that order.
        assumed: a sentence about what was assumed of the network on both sides, or "".
    """

    model: str
    weights: str
    ours: str
    against: str
    loaded: str
    images: str
    sections: tuple[Section, ...]
    assumed: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every layer of every section is within tolerance."""
        return not any(section.first for section in self.sections)

    def verdict(self) -> str:
        """Return the result in one sentence."""
        for section in self.sections:
            if row := section.first:
                detail = f" ({row.detail})" if row.detail else ""
                return (
                    f"They disagree: the first layer to differ in the {section.title} is "
                    f"{row.layer}{detail}, by {_number(getattr(row, section.measure))} where "
                    f"{_number(section.tolerance)} is tolerated."
                )
        worst = [f"{_number(getattr(s.worst, s.measure))} in the {s.title}" for s in self.sections]
        return f"They agree; the largest differences are {', '.join(worst)}."

    def as_json(self) -> dict[str, Any]:
        """Return everything, in types that JSON has; numbers that are not finite become null."""

        def row_of(section: Section, row: Difference) -> dict[str, Any]:
            values = {k: _finite(v) for k, v in row._asdict().items()}
            return values | {"agrees": section.agrees(row)}

        facts = {name: value for name, value in asdict(self).items() if name != "sections"}
        return facts | {
            "agrees": self.agrees,
            "verdict": self.verdict(),
            "sections": [
                {
                    "title": section.title,
                    "tolerance": section.tolerance,
                    "measure": section.measure,
                    "first_to_disagree": section.first.layer if section.first else None,
                    "layers": [row_of(section, row) for row in section.rows],
                }
                for section in self.sections
            ],
        }


def show_parity(report: Report, console: Console) -> None:
    """Print a table for each section, and the verdict."""
    say(console, f"{report.model}, {report.weights}: {report.ours} beside {report.against}")
    say(console, f"Shown to both: {report.images}. PyTorch's weights: {report.loaded}.")
    if report.assumed:
        say(console, report.assumed)
    for section in report.sections:
        measure = "relative to the largest" if section.measure == "relative" else "absolute"
        title = section.title[0].upper() + section.title[1:]
        console.print()
        say(console, f"{title}; tolerance {_number(section.tolerance)}, {measure}.")
        rows = [row for row in section.rows if _is_shown(section, row)]
        # Which tensor it was matters for what is said of tensors.
        detailed = any(row.detail for row in rows)
        columns = [
            Column("layer"),
            Column("largest difference", True),
            Column("relative", True),
            Column("cosine", True),
            Column("agrees"),
        ]
        columns += [Column("in")] if detailed else []
        print_table(console, columns, [_cells(section, row, detailed) for row in rows])
        hidden = len(section.rows) - len(rows)
        if hidden:
            say(
                console,
                f"{hidden} more are not shown, since they agree: inputs and sums of the branches.",
            )
    console.print()
    say(console, report.verdict())


def _is_shown(section: Section, row: Difference) -> bool:
    """Normalisations before and sums after the branches of a transformer only where they differ."""
    parts = row.layer.split(".")
    inner = len(parts) == 3 and parts[2] in ("norm1", "norm2")
    block = len(parts) == 2 and parts[0] == "blocks" and parts[1].isdigit()
    branches = any(other.layer == f"{row.layer}.mlp" for other in section.rows)
    return not section.agrees(row) or not (inner or (block and branches))


def _cells(section: Section, row: Difference, detailed: bool) -> list[str]:
    agrees = "yes" if section.agrees(row) else "NO"
    cells = [row.layer, _number(row.maximum), _number(row.relative), f"{row.cosine:.9f}", agrees]
    return [*cells, row.detail] if detailed else cells


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
