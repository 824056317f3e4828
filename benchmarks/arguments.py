"""What the command lines of the benchmarks share."""

import argparse
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from deit_jax.cli.arguments import positive_count
from deit_jax.schema.declare import shown


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers above 0, separated by commas, each once: for `type=` of argparse."""
    try:
        return tuple(dict.fromkeys(positive_count(word) for word in text.split(",")))
    except argparse.ArgumentTypeError:
        message = f"{shown(text)} is not a comma-separated list of whole numbers above 0"
        raise argparse.ArgumentTypeError(message) from None


def names(allowed: tuple[str, ...] = ()) -> Callable[[str], tuple[str, ...]]:
    """Return the kind of comma-separated names, each once; of `allowed`, if any are."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        for name in found:
            if allowed and name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        if not found:
            raise argparse.ArgumentTypeError("expected at least one name")
        return found

    return parse


def check_outputs(paths: Iterable[Path | None]) -> None:
    """Refuse files that could not be written at the end, before anything is measured.

    Raises:
        ValueError: a directory is not there, or there is one in a file's place.
    """
    for path in paths:
        if path and not path.parent.is_dir():
            raise ValueError(f"{path.parent} is not a directory; create it or write elsewhere.")
        if path and path.is_dir():
            raise ValueError(f"{path} is a directory; name a file.")


def check_against(against: Collection[str], models: Iterable[str]) -> None:
    """Refuse to measure beside PyTorch where it or one of its models is missing.

    Raises:
        ValueError: torch or timm do not load, or timm has no such model.
    """
    if not against:
        return
    try:
        from benchmarks import torch_side
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"--against needs torch and timm (pip install torch timm), which do not load: {error}."
        ) from error
    for name in models:
        torch_side.check_model(name)
