"""TensorBoard's form of a run's log: numbers, hyper-parameters, pictures."""

import contextlib
import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

_LOG = logging.getLogger("deit_jax")


class Events:
    """An event file, written at once.

    Not tensorboardX's `SummaryWriter`: its queue blocks training for ever once the thread behind it
    has died of a full disk.
    """

    def __init__(self, workdir: Path, resume_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import hparams, scalar

        self._event, self._summary = Event, Summary
        self._scalar, self._hparams = scalar, hparams
        self._last: Any = None
        # With the step in its name: files opened within a second would have the same one.
        self._path = workdir
        self._writer = EventsWriter(str(workdir / "events"), f".{resume_step}")
        # TensorBoard drops what earlier files hold from this step on.
        start = SessionLog(status=SessionLog.START)
        self._send([Event(wall_time=time.time(), step=resume_step + 1, session_log=start)])

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write numbers; TensorBoard shows those of one kind of weights and head together."""
        self._summaries(step, (self._scalar(f"{split}/{n}", float(x)) for n, x in values.items()))

    def describe(self, hyperparameters: Mapping[str, Any], measures: Sequence[str]) -> None:
        """Write what TensorBoard's table of runs shows and compares.

        Args:
            hyperparameters: by name; what is no number, text, True or False is written as a text.
            measures: names of the numbers to show beside them.
        """
        values = {name: _plain(value) for name, value in hyperparameters.items()}
        experiment, begin, self._last = self._hparams(values, dict.fromkeys(measures, 0.0))
        self._summaries(0, [experiment, begin])

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Write an image as PNG."""
        data = io.BytesIO()
        image.save(data, format="PNG")
        shown = self._summary.Image(
            height=image.height, width=image.width, colorspace=3,
            encoded_image_string=data.getvalue(),
        )  # fmt: skip
        self._summaries(step, [self._summary(value=[self._summary.Value(tag=name, image=shown)])])

    def close(self, *, finished: bool) -> None:
        """End the file; the table of runs is told of a run that has finished."""
        if finished and self._last is not None:
            self._summaries(0, [self._last])
        with contextlib.suppress(OSError):
            self._writer.close()

    def _summaries(self, step: int, summaries: Iterable[Any]) -> None:
        now = time.time()
        self._send([self._event(wall_time=now, step=step, summary=s) for s in summaries])

    def _send(self, events: Sequence[Any]) -> None:
        try:
            for event in events:
                self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            _LOG.warning("TensorBoard events not written to %s (%s).", self._path, error.strerror)


def open_events(workdir: Path, resume_step: int) -> Events | None:
    """Begin an event file; None, and a warning, where none can be written.

    Args:
        workdir: of the run.
        resume_step: last step whose events stay.
    """
    try:
        return Events(workdir, resume_step)
    except ImportError:
        _LOG.warning("tensorboardX is not installed: the log is metrics.jsonl alone.")
    except OSError as error:
        _LOG.warning("TensorBoard events cannot be written to %s (%s).", workdir, error.strerror)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, bool | int | float | str) else str(value)
