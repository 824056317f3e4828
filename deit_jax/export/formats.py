"""Exporting: a new directory in one of four formats, compared with the model before it is there."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deit_jax.data.source import Source
from deit_jax.export.card import model_card
from deit_jax.export.directory import new_directory
from deit_jax.export.examples import example, usage
from deit_jax.export.int8 import Quantised, require_quantisable, write_int8
from deit_jax.export.programs import write_onnx, write_stablehlo
from deit_jax.export.serving import Served
from deit_jax.export.subject import ExportSubject, open_export_subject
from deit_jax.files import write_json, write_text
from deit_jax.weights.formats.any import PREPROCESSOR
from deit_jax.weights.save import write_weights

INT8 = "model-int8.onnx"
PROGRAMS = {"stablehlo": write_stablehlo, "onnx": write_onnx}
FORMATS = (*PROGRAMS, "timm", "transformers")


class Exported(NamedTuple):
    """What was written, and how far it is from the model.

    Attributes:
        files: with their bytes.
        difference: largest, of logits or probabilities.
        what: these are.
        quantised: of the file in 8 bits, if there is one.
    """

    files: dict[str, int]
    difference: float
    what: str
    quantised: Quantised | None = None


def export(
    subject: ExportSubject,
    out: Path,
    layout: str,
    *,
    preprocess: bool = False,
    int8: bool = False,
    source: Source | None = None,
) -> Exported:
    """Write a model for other programs.

    Args:
        subject: from `open_export_subject`.
        out: a directory that does not exist; it is there whole afterwards, or not at all.
        layout: one of `FORMATS`.
        preprocess: put preprocessing into a program.
        int8: write a second file of ONNX, dynamically quantised.
        source: labelled images, on which is measured what that costs.

    Raises:
        FileExistsError: there is something at `out`.
        ModuleNotFoundError: a package is missing; names the extra.
        ValueError: the format has no such model or preprocessing, or what was written is not what
            the model computes.
    """
    _refuse(subject, layout, preprocess, int8)
    quantised: Quantised | None = None
    with new_directory(out) as directory:
        if layout in PROGRAMS:
            served = Served(subject, preprocess)
            difference, quantised = _write_program(served, directory, layout, int8, source)
            what, how = served.output[0], usage(layout, served)
            if quantised:
                how += f"\n\n`{INT8}` takes and gives the same. {quantised.sentence()}"
        else:
            difference = _write_directory(subject, directory, layout)
            what, how = "logits", usage(layout)
        write_text(directory / "README.md", model_card(subject, layout, out.name, how))
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return Exported(sizes, difference, what, quantised)


def _refuse(subject: ExportSubject, layout: str, preprocess: bool, int8: bool) -> None:
    if layout not in FORMATS:
        raise ValueError(f"There is no format {layout!r}; choose one of {', '.join(FORMATS)}.")
    if preprocess and layout not in PROGRAMS:
        raise ValueError(
            f"The format {layout} has its preprocessing in a file beside the weights; leave "
            "--preprocess out."
        )
    if int8:
        if layout != "onnx":
            raise ValueError(f"--int8 is for the format onnx, not {layout}; leave it out.")
        require_quantisable(subject)


def _write_program(
    served: Served, directory: Path, layout: str, int8: bool, source: Source | None
) -> tuple[float, Quantised | None]:
    """Write a program, what is said of it, and an example; return its difference."""
    program, quantised = directory / f"model.{layout}", None
    difference = PROGRAMS[layout](served, program)
    said = served.description() | {"largest_difference": difference}
    if int8:
        quantised = write_int8(served, program, directory / INT8, source)
        said["int8"] = quantised.to_json()
    write_json(directory / "serving.json", said)
    if text := example(served, layout):
        write_text(directory / "serve.py", text)
    return difference, quantised


def _write_directory(subject: ExportSubject, directory: Path, layout: str) -> float:
    """Write weights with all that timm or transformers read beside them, and read them back."""
    written = write_weights(subject.weights, directory, layout=layout)
    if layout == "transformers" and PREPROCESSOR not in [path.name for path in written]:
        raise ValueError(
            "transformers has no image processor that prepares images as these weights want them; "
            "choose another format."
        )
    again = open_export_subject(str(directory))
    if again.labels != subject.labels:
        raise ValueError(f"The format {layout} cannot hold the names of these classes.")
    height, width = subject.size
    images = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    return float(np.abs(np.asarray(again.logits(images)) - subject.logits(images)).max())
