"""Look at what augmentation does to an image: many versions of it on one sheet.

Example:
  python -m deit_jax augment photo.jpeg
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
