"""Programs in a file: StableHLO by `jax.export`, and ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from deit_jax.export.onnx_graph import Graph
from deit_jax.export.onnx_rules import TRANSLATIONS
from deit_jax.export.serving import Served
from deit_jax.extras import require
from deit_jax.files import strict_json

Program = Callable[[np.ndarray], Float[np.ndarray, "batch classes"]]

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(served: Served, path: Path) -> float:
    """Write a program that `jax.export.deserialize` reads, weights inside, for all platforms.

    Returns:
        How far it is from the model, as read back.

    Raises:
        ModuleNotFoundError: flatbuffers is not installed.
        ValueError: it is not what the model computes.
    """
    require("flatbuffers", "export", "Writing StableHLO")
    exported = jax.export.export(jax.jit(served), platforms=PLATFORMS)(served.argument)
    path.write_bytes(exported.serialize())
    return served.difference(jax.export.deserialize(bytearray(path.read_bytes())).call)


def write_onnx(served: Served, path: Path) -> float:
    """Write an ONNX file, class names and preprocessing in its metadata.

    Returns:
        How far ONNX Runtime's answers are from the model's.

    Raises:
        ModuleNotFoundError: onnx or onnxruntime is not installed.
        ValueError: the model has an operation that has no rule, or is too large for such a file,
            or the program is not what the model computes.
    """
    # Missed before the work, not after it.
    require("onnxruntime", "onnx", "Verifying ONNX")
    graph = Graph(TRANSLATIONS)
    (name, dtype, shape), (output, *_), argument = served.input, served.output, served.argument
    result, kind = graph.trace(served, argument, name)
    graph.rename(result, output)
    metadata = {key: _text(value) for key, value in served.description().items()}
    path.write_bytes(
        graph.model(
            graph.tensor_info(name, dtype, shape),
            graph.tensor_info(output, kind.dtype, served.output[2]),
            metadata,
        )
    )
    return served.difference(onnx_program(served, path))


def onnx_program(served: Served, path: Path) -> Program:
    """Return what ONNX Runtime computes on CPUs of batches that `served` takes."""
    runtime: Any = require("onnxruntime", "onnx", "Verifying ONNX")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {served.input[0]: np.asarray(batch)})[0]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else strict_json(value)
