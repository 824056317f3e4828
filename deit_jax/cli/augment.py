"""Look at what a recipe's augmentation does to images: one picture, a row for each stage.

Example:
  python -m deit_jax augment photo.jpeg
  python -m deit_jax augment cat.jpeg dog.jpeg --recipe deit --columns 6 --output sheet.png
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line, which is that of the augmentation room."""
    from deit_jax.augment import contact_sheet

    contact_sheet.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draw the sheet."""
    from deit_jax.augment import contact_sheet

    return contact_sheet.run(args)
