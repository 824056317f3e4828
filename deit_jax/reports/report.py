"""The run report: a page of HTML, its table in Markdown, and pictures as PNG."""

import contextlib
import re
from pathlib import Path

from deit_jax.files import write_text
from deit_jax.reports.comparison import Comparison
from deit_jax.reports.curves import draw_curves
from deit_jax.reports.page import experiments, report_page
from deit_jax.reports.panel_picture import draw_panels
from deit_jax.reports.panels import experiment_panels
from deit_jax.reports.table3 import table3_markdown

PAGE = "report.html"
TABLE = "report.md"
PICTURE = "curves.png"
NO_PICTURE = (
    "No learning curves were drawn as PNG: matplotlib is missing; pip install 'deit_jax[demo]' "
    "brings it."
)


def write_report(comparison: Comparison, directory: str | Path) -> list[Path]:
    """Write page, table and pictures; an earlier report in the directory is replaced.

    Args:
        comparison: what `compare` found.
        directory: made if it is missing.

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
    pictures: list[Path] = []
    with contextlib.suppress(ModuleNotFoundError):
        pictures = _draw(comparison, directory)
    names = ["Learning curves", *(one.label for one in experiments(comparison))]
    shown = [f"![{name}]({path.name})" for name, path in zip(names, pictures, strict=False)]
    text = [
        "# Run report\n",
        table3_markdown(comparison),
        *(f"{line}\n" for line in shown or [NO_PICTURE]),
        _sources(comparison),
    ]
    write_text(directory / TABLE, "\n".join(text))
    write_text(directory / PAGE, report_page(comparison))
    return [directory / PAGE, directory / TABLE, *pictures]


def _draw(comparison: Comparison, directory: Path) -> list[Path]:
    """Draw the learning curves of all, then the panels of each experiment."""
    files = [directory / PICTURE]
    draw_curves(comparison, files[0])
    for number, experiment in enumerate(experiments(comparison), start=1):
        title = f"{experiment.label}, {experiment.model}"
        files.append(directory / f"curves-{number}.png")
        draw_panels(experiment_panels(experiment), title, files[-1])
    return files


def _remove_pictures(directory: Path) -> None:
    """Remove the pictures of an earlier report: those that its table names, and no others."""
    (directory / PICTURE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        earlier = (directory / TABLE).read_text(encoding="utf-8", errors="replace")
        for name in re.findall(r"\]\((curves-\d+\.png)\)", earlier):
            (directory / name).unlink(missing_ok=True)


def _sources(comparison: Comparison) -> str:
    """List the run directories behind each row."""
    lines = ["Runs:\n"]
    for experiment in (*comparison.teachers, *comparison.students):
        paths = ", ".join(f"`{run.path}`" for run in experiment.runs)
        lines.append(f"- {experiment.label}, {experiment.model}: {paths}")
    return "\n".join(lines) + "\n"
