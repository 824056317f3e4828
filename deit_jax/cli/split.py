"""Divide a folder of images, CLASS/IMAGE, into a training and a validation split.

Of every class the same share of the images goes to the validation split. Which ones follows from
--seed and their paths, on any machine, and hardly changes when images are added. DIR then holds
train/CLASS/IMAGE and val/CLASS/IMAGE, links to the images (or, with --copy, copies), and
split.json, which says of what it was made. Nothing in FOLDER is moved or changed, and DIR must not
exist yet.

Files with the same content stay on one side. Images that are only alike, such as those of one
scene or one patient, are not noticed: put them into a folder of their own, CLASS/SCENE/IMAGE, and
give --together. Where validation shows what was trained on, its accuracy means nothing.

Example:
  python -m deit_jax split photographs --output data/own
  python -m deit_jax split photographs --output data/own --val 0.1 --test 0.2 --together --copy
"""

import argparse
from pathlib import Path

from deit_jax.cli.arguments import between, share

_LISTED = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("folder", metavar="FOLDER", help="holds a folder of images for each class")
    parser.add_argument("--output", "--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--val", type=share, default=0.2, metavar="SHARE", help="of the images (default: 0.2)"
    )
    parser.add_argument(
        "--test", type=share, metavar="SHARE", help="of the images, for a third split, test"
    )
    parser.add_argument(
        "--seed", type=between(0), default=0, metavar="N", help="which images (default: 0)"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="keep the images of each folder below a class on one side",
    )
    parser.add_argument(
        "--copy", action="store_true", help="copy the images; links to them take no space"
    )


def run(args: argparse.Namespace) -> int:
    """Divide, and say what was done."""
    from rich.console import Console

    from deit_jax.data.prepare.split import check_output, divide, write_division
    from deit_jax.reports.terminal import print_table, progress_bar, say
    from deit_jax.tables import Column

    shares = {"val": args.val} | ({"test": args.test} if args.test else {})
    if sum(shares.values()) >= 1:
        raise ValueError("Nothing is left for training: give --val and --test less than 1 in all.")
    output, console = Path(args.output), Console()
    check_output(args.folder, output)
    division = divide(args.folder, shares, args.seed, together=args.together)
    counts = division.counts()
    total = sum(map(len, division.splits.values()))
    with progress_bar("copying" if args.copy else "linking", total) as advance:
        write_division(division, output, copy=args.copy, progress=advance)
    rows = [[name, *map(str, row.values())] for name, row in list(counts.items())[:_LISTED]]
    print_table(console, [Column("class"), *(Column(s, True) for s in division.splits)], rows)
    if len(counts) > _LISTED:
        say(console, f"and {len(counts) - _LISTED:,} more classes")
    for note in division.notes:
        say(console, f"note: {note}")
    sizes = ", ".join(f"{len(paths):,} in {name}" for name, paths in division.splits.items())
    kind = "copies" if args.copy else "links; the images have to stay where they are"
    say(console, f"{output}: {len(counts):,} classes, {sizes} ({kind}).")
    say(
        console,
        "Train with: python -m deit_jax train --config own.py:finetune --workdir RUN "
        f"--config.data.directory={output} --config.model.weights=WEIGHTS",
    )
    return 0
