"""Compare runs: a table in the form of the paper's Table 3, their curves and configurations.

Runs that differ in nothing but the seed are one row: mean and standard deviation.
Writes report.html, a page that needs nothing else, report.md and pictures; prints the table.

Example:
  python -m deit_jax report runs/digits/*
  python -m deit_jax report runs/digits/* --images
  python -m deit_jax report runs/small_none runs/small_hard --teacher runs/regnety_160
"""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from deit_jax.reports.comparison import Comparison
    from deit_jax.reports.inspection import Inspection
    from deit_jax.runs.history import RunRecord
    from deit_jax.sheets import SeenImages

# Training images that are shown of each experiment.
_SEEN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a --workdir of train.py")
    parser.add_argument(
        "--teacher",
        metavar="RUN",
        help="run of the teacher, where it is no longer where the students' configuration says",
    )
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        help="whose accuracies (default: those that the runs' config.evaluation.weights names)",
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="evaluate the newest checkpoints too: what the networks see, confusion, the surest "
        "mistakes, how often teacher and heads differ (takes the data, and time)",
    )
    parser.add_argument(
        "--output",
        "--out",
        default="report",
        metavar="DIR",
        help="where to write (default: report)",
    )


def run(args: argparse.Namespace) -> int:
    """Read the runs, write table and picture, print the table."""
    from deit_jax.reports.comparison import compare_runs
    from deit_jax.reports.report import NO_PICTURE, PICTURE, write_report
    from deit_jax.reports.table3 import show_table3
    from deit_jax.reports.terminal import say

    comparison = compare_runs(args.runs, teacher=args.teacher, weights=args.weights)
    console = Console()
    inspections = _inspect(comparison, args, console) if args.images else []
    written = write_report(comparison, args.output, inspections)
    show_table3(comparison, console)
    console.print()
    if PICTURE not in [path.name for path in written]:
        say(console, NO_PICTURE)
    say(console, f"Written: {', '.join(str(path) for path in written)}")
    return 0


def _inspect(
    comparison: "Comparison", args: argparse.Namespace, console: Console
) -> "list[Inspection]":
    from deit_jax.reports.inspection import Inspector
    from deit_jax.reports.terminal import say
    from deit_jax.training.seen import see_first_batch

    def see(run: "RunRecord") -> "SeenImages":
        return see_first_batch(run.config, _SEEN, teacher=args.teacher or "")

    inspector = Inspector(
        comparison.weights, see, args.teacher or "", lambda text: say(console, text)
    )
    return [inspector.inspect(one) for one in comparison.shown]
