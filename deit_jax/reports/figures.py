"""What all pictures have in common: names shown as they are, and files written whole."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deit_jax.files import printable, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


def new_figure(
    width: float,
    height: float,
    dpi: int = 150,
    layout: Literal["constrained"] | None = "constrained",
) -> "Figure":
    """Return an empty figure of so many inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    # The object interface: no global state, and no display is looked for.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout=layout)


def literal(text: str) -> str:
    """Return a text that matplotlib shows as it is.

    Without it what lies between two dollar signs is set as a formula, or is the end of the program
    if it is none; and what is no Unicode, in names of files, cannot be drawn.
    """
    return printable(text).replace("$", r"\$")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the path's ending, completely or not at all."""
    with written_whole(path) as partial, warnings.catch_warnings():
        # A character that the font lacks, in a name of a file or class, is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(partial, format=path.suffix.removeprefix("."))


def save_image(image: "Image.Image", path: Path) -> None:
    """Write an image as PNG, completely or not at all."""
    with written_whole(path) as partial:
        image.save(partial, format="PNG")
