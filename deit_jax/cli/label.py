"""Compute a teacher's labels ahead of training, for all runs of the same stream of images.

What the teacher of a configuration says to every image of every step is written into a directory;
runs with --config.teacher.labels=DIR read it and neither load nor ask the teacher. Labels that are
there are not computed again: give the same command again after an interruption. Several processes,
on one machine or many, may share the work by --epochs, which are counted from 0.

Example:
  python -m deit_jax label --config configs/distill.py:small,hard --output labels/imagenet \\
      --config.data.directory=DIR/imagenet2012/5.1.0 --config.teacher.weights=TEACHER_DIR \\
      --epochs 0:100
"""

import argparse
import math
import re

from deit_jax.cli.arguments import add_overrides, require_valid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE:WHAT",
        help="as for train.py, with --config.a.b=value",
    )
    parser.add_argument(
        "--output", "--out", required=True, metavar="DIR", help="where the labels go"
    )
    parser.add_argument(
        "--epochs",
        type=_stretch,
        metavar="A:B",
        help="only those from A on and before B (default: all)",
    )
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Compute what is missing, and say how much that was."""
    from deit_jax.sweeps.plan import read_config

    config = read_config(args.config, args.overrides)
    config.teacher.labels = args.output
    if config.distillation.kind == "none":
        raise ValueError(
            f"{args.config} has no teacher (config.distillation.kind is 'none'), so there is "
            "nothing to label; give a configuration of distillation."
        )
    require_valid(config)
    from deit_jax.training.labelling import label

    done = label(config, args.epochs)
    count = len(done.steps)
    print(
        f"Labels of steps {done.steps.start:,} to {done.steps.stop - 1:,} ({count:,}) are in "
        f"{args.output}: {done.computed:,} were computed, {count - done.computed:,} were there. "
        f"Train with --config.teacher.labels={args.output}."
    )
    return 0


def _stretch(text: str) -> tuple[float, float]:
    numbers = re.fullmatch(r"([0-9.]{1,12}):([0-9.]{1,12})", text)
    try:
        first, last = map(float, numbers.groups() if numbers else ())
    except ValueError:
        first, last = 0.0, -math.inf
    if not first < last:
        raise argparse.ArgumentTypeError(f"{text!r} is no stretch of epochs, such as 0:100")
    return first, last
