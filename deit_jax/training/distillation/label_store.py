"""Answers of a teacher on disk, by step: parts of a stream with checksums, whole or not there.

    DIR/stream.json             what the answers belong to; one directory holds one stream
    DIR/parts/N.safetensors     the Nth run of steps: which of them are there, and their arrays

A part that is damaged, or of another stream, is one that is not there: its steps are computed
again. Several writers add to a part in turn, under a lock, and none loses what others have written.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from deit_jax.files import remove_partials, written_whole
from deit_jax.training.distillation.label_stream import LabelStream, read_stream

_LOG = logging.getLogger("deit_jax")

# Large enough to be read in one go, small enough to be rewritten at every checkpoint.
_PART_BYTES: Final = 16 << 20
_MOST_STEPS: Final = 1024
PRESENT: Final = "present"
"""Name of the array that says which steps of a part are there."""

Arrays = Mapping[str, np.ndarray]
"""What one step has, by name."""
Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and type of each."""


class LabelStore:
    """The answers of one stream; steps are counted from 0.

    Nothing is written before `save`.

    Args:
        directory: made when the first answers are saved.
        stream: what the answers belong to.
        shapes: of the arrays of one step.

    Raises:
        ValueError: the directory holds answers of another stream, whose first key that differs is
            named, or something else.
    """

    def __init__(self, directory: Path, stream: LabelStream, shapes: Shapes):
        self.directory, self.stream = directory, stream
        size = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes.values())
        self.steps_per_part = max(1, min(_MOST_STEPS, _PART_BYTES // max(1, size)))
        self._shapes = {
            **{
                name: ((self.steps_per_part, *shape), kind)
                for name, (shape, kind) in shapes.items()
            },
            PRESENT: ((self.steps_per_part,), "bool"),
        }
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        self._unsaved: set[int] = set()
        self._lost: set[int] = set()
        self._begun = False
        if found := read_stream(directory):
            stream.require(found, directory)

    def read(self, step: int) -> Arrays | None:
        """Return the arrays of a step, or None if they have to be computed."""
        number, row = divmod(step, self.steps_per_part)
        part = self.part(number)
        return {name: part[name][row] for name in part} if part[PRESENT][row] else None

    def part(self, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of so many steps in a row; "present" says which of them are there."""
        if number not in self._parts:
            # A stream is read in order: what lies behind is not needed again.
            for old in self._parts.keys() - self._unsaved:
                del self._parts[old]
            self._parts[number] = self._read(number)
        return self._parts[number]

    def empty(self) -> dict[str, np.ndarray]:
        """Return a part of which nothing is there."""
        return {name: np.zeros(shape, kind) for name, (shape, kind) in self._shapes.items()}

    def add(self, step: int, arrays: Arrays) -> None:
        """Keep the arrays of a step; they are on disk after `save`."""
        number, row = divmod(step, self.steps_per_part)
        held = self.part(number)
        for name in arrays:
            held[name][row] = arrays[name]
        held[PRESENT][row] = True
        self._unsaved.add(number)

    @property
    def unsaved_parts(self) -> int:
        """How many parts have answers that are in memory alone."""
        return len(self._unsaved)

    def save(self) -> None:
        """Write what was added; what others have added meanwhile stays.

        Raises:
            OSError: it cannot be written, of a full disk for instance. It stays in memory.
            ValueError: another stream was begun in the directory meanwhile.
        """
        for number in sorted(self._unsaved):
            with self._locked():
                theirs, ours = self._read(number), self._parts[number]
                rows = theirs[PRESENT] & ~ours[PRESENT]
                # Not into memory: the processes of a run go on with the same.
                whole = {name: array.copy() for name, array in ours.items()}
                for name in whole:
                    whole[name][rows] = theirs[name][rows]
                self._write(number, whole)
            self._unsaved.discard(number)
            self._lost.discard(number)

    def forget(self) -> None:
        """Let go of what could not be saved."""
        for number in self._unsaved:
            del self._parts[number]
        self._unsaved.clear()

    def present(self, first: int, last: int, *, verify: bool = False) -> np.ndarray:
        """Return for each of the steps first .. last - 1 whether it is there.

        Args:
            first: the first step.
            last: the step after the last.
            verify: read the parts whole and check them; else damage is seen when they are used.
        """
        numbers = range(first // self.steps_per_part, -(-last // self.steps_per_part))
        rows = [
            (self._read(number) if verify else self._glance(number))[PRESENT] for number in numbers
        ]
        begin = numbers.start * self.steps_per_part
        return np.concatenate([*rows, np.zeros(0, bool)])[first - begin : last - begin]

    def _path(self, number: int) -> Path:
        return self.directory / "parts" / f"{number:08d}.safetensors"

    def _read(self, number: int) -> dict[str, np.ndarray]:
        """Read a part and verify it; empty if it is not there, or damaged, which is said."""
        found, metadata = self._load(number, self._shapes)
        if found and metadata.get("sha256") != self._digest(number, found):
            found = self._lose(number, "its checksum is another, or it is of another stream")
        return found or self.empty()

    def _glance(self, number: int) -> dict[str, np.ndarray]:
        """Read no more than which steps a part has."""
        return self._load(number, [PRESENT])[0] or self.empty()

    def _load(self, number: int, names: Any) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
        path = self._path(number)
        if not path.exists():
            return {}, {}
        try:
            with safe_open(path, framework="numpy") as file:
                # Owned, since it is added to.
                found = {name: np.array(file.get_tensor(name)) for name in names}
                metadata = file.metadata() or {}
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            return self._lose(number, str(error)), {}
        if any((a.shape, a.dtype.name) != self._shapes[name] for name, a in found.items()):
            return self._lose(number, "it has other arrays"), {}
        return found, metadata

    def _lose(self, number: int, reason: str) -> dict[str, np.ndarray]:
        if number not in self._lost:
            self._lost.add(number)
            path = self._path(number)
            _LOG.warning("%s is damaged (%s): its labels are computed again.", path, reason)
        return {}

    def _write(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        with written_whole(self._path(number)) as partial:
            save_file(arrays, partial, metadata={"sha256": self._digest(number, arrays)})

    def _digest(self, number: int, arrays: Arrays) -> str:
        total = hashlib.sha256(f"{self.stream.digest} {number}".encode())
        for name in sorted(arrays):
            total.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return total.hexdigest()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out, and begin the directory if nobody has."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if not self._begun:
                    _LOG.warning(
                        "%s cannot be locked (%s): of labels that two runs write there at the same "
                        "time, some may be lost and computed again.",
                        self.directory,
                        error,
                    )
            if not self._begun:
                self.stream.begin(self.directory)
                (self.directory / "parts").mkdir(exist_ok=True)
                remove_partials(self.directory / "parts")
                self._begun = True
            yield
        finally:
            os.close(file)
