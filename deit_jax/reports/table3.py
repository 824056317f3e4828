"""The table in the form of the paper's Table 3: supervision against the accuracy of each head."""

from rich.console import Console

from deit_jax.reports.comparison import Comparison
from deit_jax.reports.experiments import Experiment, Spread, taught
from deit_jax.reports.terminal import print_table, say
from deit_jax.runs.history import MEASURED_HEADS
from deit_jax.tables import Column, markdown_table

_NOTHING = "-"
# Columns that a narrow terminal goes without, the first first.
_DISPENSABLE = ("model", "images", "seeds", "time", "epochs", "labels")


COLUMNS = (
    Column("supervision"),
    Column("labels"),
    Column("teacher"),
    Column("class head", True),
    Column("distil. head", True),
    Column("both", True),
    Column("images", True),
    Column("epochs", True),
    Column("time", True),
    Column("seeds", True),
    Column("model"),
)


def table3_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the cells under `COLUMNS`, teachers first."""
    return [_row(experiment) for experiment in (*comparison.teachers, *comparison.students)]


def table3_caption(comparison: Comparison) -> list[str]:
    """Return the sentences under the table: what was measured on what, and the paper's own."""
    results = [run.result for one in comparison.students for run in one.runs if run.result]
    images = sorted({result["data"]["eval_images"] for result in results})
    on = f" ({', '.join(f'{count:,}' for count in images)} images)" if images else ""
    of = {"raw": "weights", "ema": "averaged (EMA) weights"}[comparison.weights]
    several = any(len(one.runs) > 1 for one in (*comparison.teachers, *comparison.students))
    lines = [
        f"Top-1 accuracy in percent of the last step's {of} on the evaluation split{on}"
        + (", mean \N{PLUS-MINUS SIGN} sample standard deviation over seeds." if several else "."),
    ]
    if not all(one.finished for one in comparison.students):
        lines.append("Unfinished runs stand with their last evaluation.")
    if comparison.teachers:
        lines.append("The teacher's is that of the checkpoint that taught.")
    lines.append(
        "images: training images; time: of the whole run, evaluations included. "
        "Every figure was measured by these runs; the form is that of Table 3 in arXiv 2012.12877."
    )
    return lines


def table3_markdown(comparison: Comparison) -> str:
    """Return table, caption and notes as GitHub-flavoured Markdown."""
    table = markdown_table(COLUMNS, table3_rows(comparison))
    return "\n\n".join([table, " ".join(table3_caption(comparison)), *comparison.notes]) + "\n"


def show_table3(comparison: Comparison, console: Console) -> None:
    """Print table, caption and notes."""
    left_out = print_table(
        console,
        COLUMNS,
        table3_rows(comparison),
        dispensable=_DISPENSABLE,
        section_after=len(comparison.teachers),
    )
    for text in (*table3_caption(comparison), *comparison.notes):
        say(console, text)
    if left_out:
        say(console, f"Left out for lack of width, but in the report: {', '.join(left_out)}.")


def percent(value: Spread | None) -> str:
    """Write an accuracy in percent, with its spread where there is one."""
    if value is None:
        return _NOTHING
    deviation = "" if value.deviation is None else f" \N{PLUS-MINUS SIGN} {value.deviation:.2f}"
    return f"{value.mean:.2f}{deviation}"


def duration(seconds: float) -> str:
    """Write a duration in the largest unit of which it is at least about two."""
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    unit, size = next((u for u in units if seconds >= 1.95 * u[1]), units[-1])
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def _row(experiment: Experiment) -> tuple[str, ...]:
    run, heads = experiment.first, experiment.heads
    options = run.config["distillation"]
    with_teacher = taught(run)
    uses_labels = not with_teacher or options["weight"] < 1
    images = (run.result or run.config)["data"]["train_images"]
    seconds = experiment.seconds
    return (
        experiment.label,
        "yes" if uses_labels else "no",
        options["kind"] if with_teacher else _NOTHING,
        *(percent(heads.get(head)) for head in MEASURED_HEADS),
        f"{images:,}" if images else _NOTHING,
        f"{experiment.epochs:.4g}",
        duration(seconds.mean) if seconds else _NOTHING,
        str(len(experiment.runs)),
        experiment.model,
    )
