"""List the models: name, default image size, parameters, published ImageNet top-1, known files.

Example:
  python -m deit_jax models
  python -m deit_jax models 'deit_*_distilled*'
"""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from deit_jax.reports.terminal import print_table, say
from deit_jax.tables import Column

if TYPE_CHECKING:
    from deit_jax.models.registry import ModelSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="part of a name, or a shell pattern such as 'deit_*_384' (default: all)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from deit_jax.models.registry import list_models, model_spec

    wild = any(character in args.pattern for character in "*?[")
    names = list_models(args.pattern if wild else f"*{args.pattern}*")
    if not names:
        # Raises, and names the nearest ones.
        model_spec(args.pattern)
    columns = (
        Column("model"),
        Column("image size", numbers=True),
        Column("parameters", numbers=True),
        Column("published top-1", numbers=True),
        Column("published weights"),
    )
    console = Console()
    rows = [_row(model_spec(name)) for name in names]
    print_table(console, columns, rows, dispensable=("published weights",))
    say(
        console,
        "Image size in pixels; published top-1: on ImageNet, in percent, of the paper or of the "
        "weights released with it. Published weights: files that are recognised by name and hash "
        "(those of DeiT III have none).",
    )
    return 0


def _row(spec: "ModelSpec") -> tuple[str, ...]:
    from deit_jax.weights.published import DEIT3, LITE, PUBLISHED

    height, width = spec.image_size
    return (
        spec.name,
        f"{height} x {width}",
        f"{spec.parameters:,}",
        str(spec.top1) if spec.top1 else "-",
        ", ".join(entry.file for entry in (*PUBLISHED, *DEIT3, *LITE) if entry.model == spec.name)
        or "-",
    )
