"""What kept labels belong to: all that a teacher's answer to a row of a batch follows from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deit_jax.config.kept_labels import STREAM
from deit_jax.files import is_partial, read_json, write_json

# To be raised also when the same keys come to mean other images.
_FORMAT: Final = 1
_OWN: Final = ("lock", "parts")


@dataclass(frozen=True)
class LabelStream:
    """What labels belong to, and what else is known of them.

    Attributes:
        keys: what decides; labels of other values are other labels. JSON of one level.
        teacher: where the answers are from, which decides nothing: see `TaughtBy`.
    """

    keys: Mapping[str, Any]
    teacher: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # As they will be when they are read again: tuples are lists.
        for name in ("keys", "teacher"):
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))

    @property
    def digest(self) -> str:
        """SHA-256 over what decides."""
        return _digest([_FORMAT, self.keys])

    def require(self, found: "LabelStream", directory: Path) -> None:
        """Refuse labels that belong to something else.

        Raises:
            ValueError: naming the first key that differs, with both values.
        """
        for key in [*self.keys, *found.keys]:
            refuse_other(directory, key, found.keys.get(key), self.keys.get(key))

    def begin(self, directory: Path) -> None:
        """Write it down, if nobody has.

        Raises:
            ValueError: the directory holds labels of another stream, or something else.
            OSError: it cannot be written.
        """
        if found := read_stream(directory):
            self.require(found, directory)
            return
        content = {"format": _FORMAT, "stream": self.keys, "teacher": self.teacher}
        write_json(directory / STREAM, {**content, "sha256": _digest(content)}, overwrite=False)


def refuse_other(directory: Path, key: str, found: Any, wanted: Any) -> None:
    """Refuse labels made with another value of a key.

    Raises:
        ValueError: naming the key, with both values.
    """
    if found != wanted:
        raise ValueError(
            f"The teacher's labels in {directory} are of another stream: {key} was {found!r} and "
            f"is {wanted!r} here; give another directory for labels, or the value that they are of."
        )


def read_stream(directory: Path) -> LabelStream | None:
    """Read what the labels in a directory belong to; None if there are none.

    Raises:
        ValueError: the directory holds something else, or it is damaged.
    """
    path = directory / STREAM
    if not path.exists():
        _refuse_foreign(directory)
        return None
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or "sha256" not in content:
        raise ValueError(f"{path} was not written by deit_jax; give another directory for labels.")
    if content.pop("sha256") != _digest(content):
        raise _damaged(path)
    if content["format"] != _FORMAT:
        raise ValueError(f"{path} is of another version of deit_jax; give another directory.")
    return LabelStream(content["stream"], content["teacher"])


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged; delete it, and whoever fills in labels next writes it again: they "
        "know themselves what they belong to."
    )


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give a directory for labels.")
    names = {entry.name for entry in directory.iterdir()} if directory.exists() else set()
    foreign = sorted(name for name in names if name not in _OWN and not is_partial(name))
    if foreign:
        raise ValueError(
            f"{directory} holds other files ({foreign[0]}); give another directory for labels."
        )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
