"""Translate weights: of the reference, timm, transformers, torchvision or a run of train.py.

SRC is a file, a directory, a run of train.py or the name of a Hugging Face repository in the local
cache; what it holds is seen from its content, and published files are verified.
DST is a .safetensors or .pth file, or a directory that timm or transformers can load from.

Example:
  python -m deit_jax convert deit_small_patch16_224-cd65a155.pth small.safetensors
  python -m deit_jax convert runs/small_hard small_hard --layout transformers --which ema
"""

import argparse
from typing import TYPE_CHECKING

from deit_jax.cli.arguments import add_weights_choice

if TYPE_CHECKING:
    from deit_jax.weights.reading import Weights
    from deit_jax.weights.report import LoadReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("source", metavar="SRC", help="weights to read")
    parser.add_argument("destination", metavar="DST", help="what to write")
    parser.add_argument(
        "--layout",
        choices=("timm", "official", "transformers"),
        default="timm",
        help="names of the tensors (default: timm)",
    )
    add_weights_choice(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: as they are"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is at DST")
    parser.add_argument(
        "--download", action="store_true", help="fetch a repository that is not in the cache"
    )


def run(args: argparse.Namespace) -> int:
    """Read, check, write, and say what became of every array."""
    from deit_jax.runs.open_weights import read_weights
    from deit_jax.weights.load import fit_to_itself
    from deit_jax.weights.save import write_weights

    weights = read_weights(
        args.source,
        which=args.which,
        model=args.model,
        checkpoint=args.checkpoint,
        download=args.download,
    )
    report = fit_to_itself(weights).report
    written = write_weights(
        weights,
        args.destination,
        layout=args.layout,
        overwrite=args.overwrite,
        dtype=args.dtype,
    )
    _show(weights, report)
    size = sum(path.stat().st_size for path in written)
    kind = args.dtype or "their types unchanged"
    print(f"Written: {' and '.join(map(str, written))} ({args.layout}, {kind}, {size:,} bytes).")
    return 0


def _show(weights: "Weights", report: "LoadReport") -> None:
    from rich.console import Console

    from deit_jax.reports.terminal import print_table, say
    from deit_jax.weights.report import LOAD_COLUMNS

    console = Console()
    say(console, f"Weights of {weights.source}:")
    print_table(console, LOAD_COLUMNS, report.cells())
    for note in report.notes:
        say(console, note)
    if report.warning:
        say(console, report.warning)
