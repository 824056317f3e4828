"""The run report: `report.md` with the table, and `curves.png` beside it."""

import contextlib
from pathlib import Path

from deit_jax.files import write_text
from deit_jax.reports.comparison import Comparison
from deit_jax.reports.curves import draw_curves
from deit_jax.reports.table3 import table3_markdown

TABLE = "report.md"
PICTURE = "curves.png"
NO_PICTURE = (
    "No learning curves were drawn: matplotlib is missing; pip install 'deit_jax[demo]' brings it."
)


def write_report(comparison: Comparison, directory: str | Path) -> list[Path]:
    """Write table and picture; an earlier report in the directory is replaced.

    Args:
        comparison: what `compare` found.
        directory: made if it is missing.

    Returns:
        The files written: the picture is missing from them where matplotlib is not installed.

    Raises:
        FileExistsError: `directory` is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file; give another directory with --output.")
    directory.mkdir(parents=True, exist_ok=True)
    picture = directory / PICTURE
    # Never an old picture beside a new table.
    picture.unlink(missing_ok=True)
    with contextlib.suppress(ModuleNotFoundError):
        draw_curves(comparison, picture)
    drawn = picture.exists()
    image = f"![Learning curves]({PICTURE})\n" if drawn else f"{NO_PICTURE}\n"
    text = "\n".join(["# Run report\n", table3_markdown(comparison), image, _sources(comparison)])
    write_text(directory / TABLE, text)
    return [directory / TABLE, *([picture] if drawn else [])]


def _sources(comparison: Comparison) -> str:
    """List the run directories behind each row."""
    lines = ["Runs:\n"]
    for experiment in (*comparison.teachers, *comparison.students):
        paths = ", ".join(f"`{run.path}`" for run in experiment.runs)
        lines.append(f"- {experiment.label}, {experiment.model}: {paths}")
    return "\n".join(lines) + "\n"
