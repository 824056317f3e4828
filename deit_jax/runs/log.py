"""The numbers of a run over its steps: `metrics.jsonl` and TensorBoard events."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from deit_jax.files import strict_json, written_whole
from deit_jax.runs.events import Events, open_events
from deit_jax.runs.log_lines import read_lines

_LOG = logging.getLogger("deit_jax")


class RunLog:
    """Appends one line of JSON per measurement; a context manager.

    After a resume the file is the same as that of a run never interrupted, apart from what measures
    time, provided that everything about step s is written before the checkpoint of step s is saved.
    Only the first process of a run writes; in the others nothing happens.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        resume_step: int,
        owes_evaluation: bool = False,
        tensorboard: bool = True,
        hyperparameters: Mapping[str, Any] | None = None,
        measures: Sequence[str] = (),
    ) -> None:
        """Open the log, and remove what was written after the checkpoint that is gone on from.

        Args:
            workdir: directory of the run, which exists.
            resume_step: last step whose lines stay; 0 for a fresh start.
            owes_evaluation: whether that step is yet to be evaluated; a line that says otherwise
                is removed.
            tensorboard: whether to write TensorBoard events as well.
            hyperparameters: of the run by name, for TensorBoard's table of runs.
            measures: names of the numbers that stand beside them there, such as
                "eval/raw/class/top1".

        Raises:
            ValueError: lines in the middle are damaged; the file is left as it is.
        """
        self._file: int | None = None
        self._events: Events | None = None
        self._pending = b""
        self.lines = 0
        if jax.process_index() != 0:
            return
        self._path = path = Path(workdir) / "metrics.jsonl"
        self.lines = _truncate(path, resume_step, owes_evaluation)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if tensorboard:
            self._events = open_events(Path(workdir), resume_step)
        if self._events is not None and hyperparameters:
            self._events.describe(hyperparameters, measures)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._flush()
            os.close(self._file)
            self._file = None
        if self._events is not None:
            self._events.close(finished=kind is None)
        if self._pending and kind is None:
            raise OSError(
                f"The last {self._pending.count(10)} lines could not be written to {self._path}; "
                "make room on that disk. The log of this run lacks them for good."
            )

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append a line; it is in the file when this returns.

        A line that cannot be written, because the disk is full, is kept for the next call.

        Args:
            step: steps taken so far.
            split: "train" or "eval".
            values: by name. What is not finite becomes null, which strict parsers read.
        """
        if self._file is None:
            return
        line = strict_json({"step": step, "split": split, **values})
        self._pending += line.encode() + b"\n"
        self.lines += 1
        self._flush()
        if self._events is not None:
            self._events.write(step, split, values)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Show an image in TensorBoard, where that is written at all."""
        if self._events is not None:
            self._events.picture(step, name, image)

    def _flush(self) -> None:
        assert self._file is not None
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._file, self._pending) :]
        except OSError as error:
            _LOG.warning(
                "%s could not be written (%s); kept for later.", self._path, error.strerror
            )


def _truncate(path: Path, resume_step: int, owes_evaluation: bool) -> int:
    """Remove lines of later steps, and what a killed process left of a line; all or nothing.

    Returns:
        How many lines stay.

    Raises:
        ValueError: a line before the last one is damaged: no crash leaves that.
    """

    def stays(row: Mapping[str, Any]) -> bool:
        owed = owes_evaluation and row["step"] == resume_step and row["split"] == "eval"
        return row["step"] <= resume_step and not owed

    kept = [line.text for line in read_lines(path) if stays(line.row)]
    content = b"".join(text + b"\n" for text in kept)
    if path.exists() and content != path.read_bytes():
        with written_whole(path) as partial:
            partial.write_bytes(content)
    return len(kept)
