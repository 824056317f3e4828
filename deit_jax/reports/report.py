"""The run report: a page of HTML, its table in Markdown, and pictures as PNG."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.files import write_text
from deit_jax.reports.comparison import Comparison
from deit_jax.reports.curves import draw_curves
from deit_jax.reports.page import report_page
from deit_jax.reports.panel_picture import draw_panels
from deit_jax.reports.panels import experiment_panels
from deit_jax.reports.table3 import table3_markdown

if TYPE_CHECKING:
    from deit_jax.evaluation.agreement import Disagreement
    from deit_jax.reports.inspection import Inspection

PAGE = "report.html"
TABLE = "report.md"
PICTURE = "curves.png"
_Picture = tuple[str, Path]
"""What it shows, and its file."""

_OURS = re.compile(r"\]\((agreement\.png|(?:curves|seen|mistakes|confusion)-\d+\.png)\)")
NO_PICTURE = (
    "No learning curves were drawn as PNG: matplotlib is missing; pip install 'deit_jax[demo]' "
    "brings it."
)


def write_report(
    comparison: Comparison, directory: str | Path, inspections: "Sequence[Inspection]" = ()
) -> list[Path]:
    """Write page, table and pictures; an earlier report in the directory is replaced.

    Args:
        comparison: what `compare` found.
        directory: made if it is missing.
        inspections: of its experiments; () where nobody asked for them.

    Returns:
        The files written: pictures are missing from them where matplotlib is not installed.

    Raises:
        FileExistsError: `directory` is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file; give another directory with --output.")
    directory.mkdir(parents=True, exist_ok=True)
    # Never an old picture beside a new table.
    _remove_pictures(directory)
    agreement = None
    if inspections:
        # Not before: it takes JAX.
        from deit_jax.reports.inspection import disagreement_of

        agreement, _ = disagreement_of(comparison.students, inspections)
    pictures: list[_Picture] = []
    with contextlib.suppress(ModuleNotFoundError):
        pictures = _draw_curves(comparison, directory)
        if inspections:
            pictures += _draw_images(comparison, inspections, agreement, directory)
    shown = [f"![{name}]({path.name})" for name, path in pictures]
    text = [
        "# Run report\n",
        table3_markdown(comparison),
        *([_agreement(agreement)] if agreement else []),
        *(f"{line}\n" for line in shown or [NO_PICTURE]),
        _sources(comparison),
    ]
    write_text(directory / TABLE, "\n".join(text))
    write_text(directory / PAGE, report_page(comparison, inspections))
    return [directory / PAGE, directory / TABLE, *(path for _, path in pictures)]


def _draw_curves(comparison: Comparison, directory: Path) -> list[_Picture]:
    """Draw what compares all, then the panels of each experiment."""
    pictures = [("Learning curves", directory / PICTURE)]
    draw_curves(comparison, pictures[0][1])
    for number, experiment in enumerate(comparison.shown, start=1):
        title = f"{experiment.label}, {experiment.model}"
        # A finished run may have come without its log.
        if panels := [panel for panel in experiment_panels(experiment) if panel.series]:
            pictures.append((title, directory / f"curves-{number}.png"))
            draw_panels(panels, title, pictures[-1][1])
    return pictures


def _draw_images(
    comparison: Comparison,
    inspections: "Sequence[Inspection]",
    agreement: "Disagreement | None",
    directory: Path,
) -> list[_Picture]:
    """Draw agreement, and what was seen and answered of each experiment."""
    from deit_jax.reports.agreement import draw_disagreement
    from deit_jax.reports.inspection_pictures import draw_inspection

    pictures = []
    if agreement:
        pictures.append(("Agreement", directory / "agreement.png"))
        draw_disagreement(agreement, pictures[-1][1])
    pairs = zip(comparison.shown, inspections, strict=True)
    for number, (experiment, inspection) in enumerate(pairs, start=1):
        for path in draw_inspection(inspection, number, directory):
            what = path.stem.partition("-")[0]
            pictures.append((f"{experiment.label}, {experiment.model}: {what}", path))
    return pictures


def _agreement(found: "Disagreement") -> str:
    from deit_jax.reports.agreement import disagreement_markdown

    return disagreement_markdown(found)


def _remove_pictures(directory: Path) -> None:
    """Remove the pictures of an earlier report: those that its table names, and no others."""
    (directory / PICTURE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        earlier = (directory / TABLE).read_text(encoding="utf-8", errors="replace")
        for name in _OURS.findall(earlier):
            (directory / name).unlink(missing_ok=True)


def _sources(comparison: Comparison) -> str:
    """List the run directories behind each row."""
    lines = ["Runs:\n"]
    for experiment in (*comparison.teachers, *comparison.students):
        paths = ", ".join(f"`{run.path}`" for run in experiment.runs)
        lines.append(f"- {experiment.label}, {experiment.model}: {paths}")
    return "\n".join(lines) + "\n"
