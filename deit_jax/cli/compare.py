"""Prove that PyTorch computes the same from the same weights, layer by layer.

WEIGHTS is a file, a directory, a run of train.py, the name of a Hugging Face repository in the
local cache, or random:SEED. Both sides see the same images in float32; the first layer that
disagrees is named, and a picture is written. Exit code 0: they agree; 1: they do not.

Example:
  python -m deit_jax compare deit_small_patch16_224-cd65a155.pth --image cat.jpeg
  python -m deit_jax compare random:0 --model deit_tiny_patch16_224 --against transformers
  python -m deit_jax compare random:0 --gradients --step hard --picture proof.png
"""

import argparse
import json
from pathlib import Path

from deit_jax.cli.arguments import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("weights", metavar="WEIGHTS", help="what both sides load")
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="where the model is not recognised (random: deit_tiny_distilled_patch16_224)",
    )
    parser.add_argument(
        "--which", choices=("model", "ema"), default="model", help="of a training checkpoint"
    )
    parser.add_argument(
        "--image", nargs="+", default=[], metavar="FILE", help="default: two images of noise"
    )
    parser.add_argument(
        "--against",
        choices=("timm", "transformers", "official"),
        default="timm",
        help="whose PyTorch model; official: DeiT written plainly from the paper (default: timm)",
    )
    parser.add_argument(
        "--gradients", action="store_true", help="compare the gradients of the loss too"
    )
    parser.add_argument(
        "--step",
        choices=("none", "soft", "hard"),
        help="compare a whole AdamW step with this distillation, by a small frozen teacher",
    )
    parser.add_argument(
        "--tolerance",
        type=positive,
        default=1e-5,
        metavar="X",
        help="largest relative difference; of gradients ten times that (default: 1e-5)",
    )
    parser.add_argument(
        "--picture", default="comparison.png", metavar="FILE", help="default: comparison.png"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, nothing else")


def run(args: argparse.Namespace) -> int:
    """Compare, print, draw."""
    from deit_jax.extras import require

    require("torch")
    if args.against != "official":
        require(args.against)
    from rich.console import Console

    from deit_jax.parity.compare import compare_with_torch, open_subject
    from deit_jax.parity.picture import draw
    from deit_jax.parity.report import show_parity
    from deit_jax.reports.terminal import say

    require("matplotlib")
    picture = Path(args.picture)
    if not picture.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no directory {picture.parent} to write the picture to.")
    subject = open_subject(args.weights, model=args.model, which=args.which)
    report = compare_with_torch(
        subject,
        args.against,
        images=args.image,
        gradients=args.gradients,
        step=args.step,
        tolerance=args.tolerance,
    )
    draw(report, picture)
    if args.json:
        print(json.dumps(report.as_json() | {"picture": str(picture)}))
    else:
        console = Console()
        show_parity(report, console)
        say(console, f"Written: {picture}")
    return 0 if report.agrees else 1
