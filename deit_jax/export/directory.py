"""A new directory that is there whole, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from deit_jax.files import naming, partial_beside


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory to write to; on success it gets its name, else it goes.

    Raises:
        FileExistsError: there is something of that name already.
        OSError: it cannot be written; with the final path.
    """
    refuse_existing(path)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = partial_beside(path)
    try:
        with naming(path, instead_of=partial):
            partial.mkdir()
            yield partial
            refuse_existing(path)
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise FileExistsError if there is something of that name."""
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already; name a directory that does not.")
