"""Whether labels of a teacher are there, for checks that open neither data nor teacher."""

from pathlib import Path
from typing import Final

STREAM: Final = "stream.json"
"""In a directory of labels, the file that says what they belong to."""


def has_labels(directory: str | Path) -> bool:
    """Return whether something says what the labels there belong to; "" is no directory."""
    return str(directory) != "" and (Path(directory) / STREAM).is_file()
