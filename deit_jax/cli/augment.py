"""Look at what a recipe's augmentation does to images: one picture, a row for each stage.

Example:
  python -m deit_jax augment photo.jpeg
  python -m deit_jax augment cat.jpeg dog.jpeg --recipe deit --columns 6 --output sheet.png
"""

import argparse
from pathlib import Path

from deit_jax.cli.arguments import between, positive_count, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    from deit_jax.augment.recipes import RECIPES

    parser.add_argument("images", nargs="+", metavar="IMAGE", help="one or more image files")
    parser.add_argument(
        "--recipe", default="deit", help=f"one of {', '.join(RECIPES)} (default: deit)"
    )
    parser.add_argument("--output", "--out", default="augmentation.png", help="PNG file to write")
    parser.add_argument(
        "--columns", type=positive_count, default=8, help="samples shown (default: 8)"
    )
    parser.add_argument(
        "--size", type=between(16), default=224, help="side in pixels (default: 224)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of all choices (default: 0)")
    parser.add_argument(
        "--epoch", type=between(0), default=0, help="epoch that is shown (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw the sheet."""
    from deit_jax.augment.recipes import recipe_named
    from deit_jax.reports.contact_sheet import contact_sheet, open_picture
    from deit_jax.reports.figures import save_image

    recipe = recipe_named(args.recipe)
    opened = [open_picture(path) for path in args.images]
    sources = [opened[column % len(opened)] for column in range(args.columns)]
    sheet = contact_sheet(sources, recipe, args.size, args.seed, args.epoch)
    save_image(sheet, Path(args.output))
    print(f"Wrote {args.output}: {args.columns} samples of recipe '{args.recipe}'.")
    return 0
