"""Reading a command line: kinds of values for `type=` of argparse, one sentence for mistakes."""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deit_jax.schema import RULES
from deit_jax.schema.declare import shown

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_LARGEST = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """An argparse parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print it and leave with exit code 2."""
        self.exit(2, f"error: {' '.join(message.split())}; see {self.prog} --help.\n")


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse a command line; a leading ~ of any value is the home directory.

    No name of a model, a split or a recipe begins so; what does is a path.
    """
    parsed = parser.parse_args(arguments)
    for name, value in vars(parsed).items():
        setattr(parsed, name, _at_home(value))
    return parsed


def add_weights_choice(parser: argparse.ArgumentParser) -> None:
    """Declare which of the weights that are named are meant, and of which model."""
    parser.add_argument(
        "--which",
        choices=("model", "ema"),
        default="",
        help="of a run or training checkpoint, the weights or their moving average (default: of a "
        "run what its config.evaluation.weights says, else model)",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint,
        default="best",
        metavar="best|latest|STEP",
        help="of a run (default: best)",
    )
    parser.add_argument(
        "--model", default="", metavar="NAME", help="where the model is not recognised"
    )


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which labelled images are meant."""
    parser.add_argument(
        "--source",
        choices=("folder", "numbered_folder", "prepared", "tfds", "digits"),
        default="",
        help="kind of the data (default: the run's); numbered_folder is ImageNet-V2",
    )
    parser.add_argument("--directory", default="", help="where the data is (default: the run's)")
    parser.add_argument("--split", default="", help="default: the run's config.data.eval_split")


def asked_place(args: argparse.Namespace) -> dict[str, str]:
    """Return what `add_place_arguments` were given, "" where nothing was, for `choose_place`."""
    return {"source": args.source, "directory": args.directory, "split": args.split}


def add_crop_ratio(parser: argparse.ArgumentParser) -> None:
    """Declare how much of an image weights are shown."""
    parser.add_argument(
        "--crop-ratio",
        type=share,
        metavar="R",
        help="share of the resized side that is kept (default: what the weights say; the "
        "reference's 0.875 where nothing does)",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare --config.a.b=VALUE for every key, unseen in the help; they come as `overrides`."""
    parser.set_defaults(overrides=[])
    for key in RULES:
        parser.add_argument(f"--config.{key}", action=_Override, help=argparse.SUPPRESS)


class _Override(argparse.Action):
    """Keeps --config.a.b=value as it was written, as train.py takes it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        namespace.overrides = [*namespace.overrides, f"{option_string}={values}"]


def require_valid(config: "ConfigDict", *, but: str = "") -> None:
    """Check a configuration on the devices here, which are started.

    Args:
        config: to check.
        but: the beginning of keys that do not matter; "" for none.

    Raises:
        ValueError: what is wrong first.
    """
    # Imported late: a wrong value is answered before JAX has started.
    import jax

    from deit_jax.config.validate import validate

    for problem in validate(config, device_count=jax.device_count()):
        if not but or but not in problem:
            raise ValueError(problem)


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(element) for element in value]
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    return os.path.expanduser(value) if isinstance(value, str) else value


def between(least: int, most: int = _LARGEST) -> Callable[[str], int]:
    """Return the kind of whole numbers from `least` to `most`."""
    limits = f"from {least} to {most:,}" if most != _LARGEST else f"of at least {least}"

    def whole_number(text: str) -> int:
        # No number that is meant has more digits.
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is no whole number {limits}")
        return int(text)

    return whole_number


positive_count = between(1)
"""A whole number above 0."""

seed = between(0, 2**64 - 1)
"""What `config.seed` may be."""


def checkpoint(text: str) -> str | int:
    """Which checkpoint of a run: best, latest or a step."""
    if text in ("best", "latest"):
        return text
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{shown(text)} is neither best nor latest nor a step")
    return int(text)


def share(text: str) -> float:
    """Return a number above 0 and up to 1."""
    if not 0 < (value := _real(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no share above 0 and up to 1")
    return value


def positive(text: str) -> float:
    """Return a finite number above 0."""
    if not 0 < (value := _real(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no positive number")
    return value


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
