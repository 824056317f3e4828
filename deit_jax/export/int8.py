"""A second file of ONNX in 8-bit whole numbers: how much faster it is here, and what it costs."""

import logging
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deit_jax.data.class_mapping import Classes, match_classes
from deit_jax.data.source import Source
from deit_jax.data.stream.read_or_replace import DamagedRecordError, read_record
from deit_jax.export.programs import Program, onnx_program
from deit_jax.export.serving import Served
from deit_jax.export.subject import ExportSubject
from deit_jax.extras import require
from deit_jax.models.registry import model_spec

MOST_IMAGES = 1000
_ROUNDS = 7


class Loss(NamedTuple):
    """What quantising costs on labelled images.

    Attributes:
        images: that both programs were asked.
        top1: of the float32 program, in percent.
        top1_int8: of the quantised one.
        alike: percentage of images that both answer alike.
    """

    images: int
    top1: float
    top1_int8: float
    alike: float


class Quantised(NamedTuple):
    """Of a quantised file.

    Attributes:
        times_as_fast: as the float32 file, for one image on this machine's CPUs; the median of
            calls that take turns.
        largest_difference: of logits or probabilities for images of noise.
        loss: on labelled images; None if there are none.
    """

    times_as_fast: float
    largest_difference: float
    loss: Loss | None

    def to_json(self) -> dict[str, Any]:
        """Return it for serving.json."""
        return self._asdict() | {"loss": self.loss and self.loss._asdict()}

    def sentence(self) -> str:
        """Say what it wins and costs."""
        speed = f"Int8: {self.times_as_fast:.2f} times as fast for one image on the CPUs here"
        if self.loss is None:
            return f"{speed}; what it costs was not measured."
        return (
            f"{speed}; of {self.loss.images:,} images {self.loss.alike:.2f} % are answered alike, "
            f"{self.loss.top1_int8:.2f} % rightly in place of {self.loss.top1:.2f} %."
        )


def require_quantisable(subject: ExportSubject) -> None:
    """Check that 8 bits win anything.

    Raises:
        ValueError: it is a convnet, of which ONNX Runtime has no faster convolutions in 8 bits
            without calibration.
    """
    name = subject.weights.model_name
    if model_spec(name).convnet:
        raise ValueError(
            f"--int8 quantises products of matrices, of which {name} has hardly any: it would not "
            "be faster; leave --int8 out."
        )


def write_int8(served: Served, path: Path, target: Path, source: Source | None) -> Quantised:
    """Write a file with weights of 8 bits, whose activations are quantised as they come.

    Args:
        served: what the programs compute.
        path: of the float32 file, written before.
        target: the new file.
        source: labelled images to measure the loss on; up to `MOST_IMAGES`, evenly spread.

    Raises:
        ValueError: the source's classes are not the model's.
    """
    quantization: Any = require("onnxruntime.quantization", "onnx", "Quantising")
    # It advises, on the root logger, what concerns graphs with batch normalisation only.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_dynamic(
            path, target, weight_type=quantization.QuantType.QInt8, per_channel=True
        )
    finally:
        logging.disable(before)
    wide, narrow = onnx_program(served, path), onnx_program(served, target)
    apart = max(np.abs(narrow(batch) - wide(batch)).max() for batch in served.examples())
    loss = measure_loss(served, wide, narrow, source) if source is not None else None
    return Quantised(_times_as_fast(wide, narrow, served.examples()[0]), float(apart), loss)


def _times_as_fast(wide: Program, narrow: Program, batch: np.ndarray) -> float:
    """Let both take turns, so that other work on the machine meets both."""

    def seconds(program: Program) -> float:
        start = time.perf_counter()
        program(batch)
        return time.perf_counter() - start

    pairs = [(seconds(wide), seconds(narrow)) for _ in range(_ROUNDS)]
    return statistics.median(one / other for one, other in pairs)


def measure_loss(served: Served, wide: Program, narrow: Program, source: Source) -> Loss:
    """Ask both programs the same images, one at a time; images that are damaged are left out.

    Raises:
        ValueError: the source's classes are not the model's, or no image can be read.
    """
    weights = served.subject.weights
    classes = match_classes(
        Classes(weights.source, weights.num_classes, served.subject.labels),
        Classes(source.name, source.num_classes, source.class_names),
        "name images of the classes it was trained for",
    ).classes
    answers = []
    for index in np.unique(np.linspace(0, len(source) - 1, MOST_IMAGES).round().astype(int)):
        try:
            record, pixels, _ = read_record(source, int(index))
        except DamagedRecordError:
            continue
        batch = served.batch_of(pixels)
        found = [program(batch)[0] for program in (wide, narrow)]
        picked = [values[list(classes)] if classes else values for values in found]
        answers.append((record.label, *(int(values.argmax()) for values in picked)))
    if not answers:
        raise ValueError(f"{source.name} has no image that can be read.")
    labels, first, second = np.array(answers).T
    hits = (first == labels, second == labels, first == second)
    top1, top1_int8, alike = (100 * float(hit.mean()) for hit in hits)
    return Loss(len(labels), top1, top1_int8, alike)
