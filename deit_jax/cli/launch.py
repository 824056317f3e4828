"""Start the processes of a run on this machine, and all of them again when one dies.

The GPUs are divided among them. Process 0 has the terminal; lines of the others come with their
number before them. Signals go to all; the exit code is that of the process that ended first.

Example:
  python -m deit_jax launch -n 2 --restarts 3 -- train.py \\
      --config configs/digits.py:none --workdir runs/none
"""

import argparse
import os
import sys

from deit_jax.cli.arguments import between, positive_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "-n",
        "--processes",
        type=positive_count,
        metavar="N",
        help="how many (default: one for each GPU, or 2 without any)",
    )
    parser.add_argument(
        "--restarts",
        type=between(0),
        default=0,
        metavar="K",
        help="how often all are started again after one has died (default: 0)",
    )
    parser.add_argument(
        "command", nargs="+", metavar="PROGRAM", help="behind --: train.py and its flags"
    )


def run(args: argparse.Namespace) -> int:
    """Launch; return the exit code."""
    from deit_jax.scale.launcher import launch
    from deit_jax.scale.place import visible_gpus

    return launch(
        [sys.executable, *args.command],
        args.processes or visible_gpus(os.environ) or 2,
        args.restarts,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
