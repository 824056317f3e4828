"""Writing weights for other implementations: the reference, timm and transformers."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from flax import nnx

from deit_jax.models.architecture import is_transformer
from deit_jax.models.functional import Classifier, split
from deit_jax.preprocessing import Preprocessing
from deit_jax.trees import Tree
from deit_jax.weights.convnet_names import name_own_convnet
from deit_jax.weights.description.config_json import timm_config, transformers_config
from deit_jax.weights.description.facts import Facts
from deit_jax.weights.description.image_processor import to_transformers
from deit_jax.weights.description.network import SMALL_EPSILON, network_of
from deit_jax.weights.description.remembered import remembered
from deit_jax.weights.formats.any import PREPROCESSOR
from deit_jax.weights.formats.writing import (
    write_bare_pth,
    write_directory,
    write_pth,
    write_safetensors,
)
from deit_jax.weights.identify import name_transformer
from deit_jax.weights.reading import Weights
from deit_jax.weights.transformer_layout import to_foreign

WRITTEN_DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_LOG = logging.getLogger("deit_jax")


def save_weights(
    model: nnx.Module | Classifier,
    path: str | os.PathLike[str],
    *,
    layout: str = "timm",
    overwrite: bool = False,
    dtype: str | None = None,
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
) -> list[Path]:
    """Write a model's weights where PyTorch's implementations can load them.

    Args:
        model: any model of `create_model`.
        path: a `.safetensors` file; a `.pth` file, which needs PyTorch (one of bare tensors gets a
            `.pth.json` beside it for what they cannot say); or else a directory, which gets
            `model.safetensors` and the `config.json` with which timm
            (`create_model("local-dir:DIR", pretrained=True)`) or transformers
            (`from_pretrained`) build the model, for transformers with the
            `preprocessor_config.json` that its image processors and pipelines read.
        layout: names of the tensors: "timm"; "official", the reference's: the same, wrapped as
            {"model": ...} in a `.pth` file; or "transformers".
        overwrite: whether existing files may be replaced.
        dtype: "float32", "bfloat16" or "float16"; as they are if None.
        class_names: of the classes, in their order; those of the weights that were loaded if ().
        preprocessing: how the model wants its images; as those weights did, else as the reference
            has them, if None.

    Returns:
        The files written. Each is complete or not there at all.

    Raises:
        FileExistsError: there is one already, and `overwrite` is off.
        ValueError: the layout is unknown or has no such model, a value is too large for `dtype`, or
            there is not one name for each class.
        ModuleNotFoundError: a `.pth` file is asked for, and PyTorch is not installed.
    """
    _, params, batch_stats = split(model)
    classifier = cast(Classifier, model)
    size = classifier.image_size
    facts = _facts(classifier, class_names, preprocessing)
    network = network_of(model)
    weights = Weights(
        type(model).__name__,
        "deit_jax",
        network.name or _guess(params, size),
        classifier.num_classes,
        size,
        params,
        batch_stats,
        facts,
        num_heads=network.num_heads,
        epsilon=network.epsilon,
    )
    return write_weights(weights, path, layout=layout, overwrite=overwrite, dtype=dtype)


def _facts(
    model: Classifier, class_names: Sequence[str], preprocessing: Preprocessing | None
) -> Facts:
    """Return what is given; what is not, as the weights that were loaded had it."""
    if class_names and len(class_names) != model.num_classes:
        raise ValueError(
            f"There are {len(class_names)} class_names for {model.num_classes} classes; give "
            "one for each."
        )
    known = remembered(model, model.num_classes)
    return Facts(
        preprocessing=preprocessing or known.preprocessing,
        labels=tuple(class_names) or known.labels,
    )


def _guess(params: Tree, size: tuple[int, int]) -> str:
    """Name a model that `model_builder` did not build by its arrays."""
    if is_transformer(params):
        return name_transformer(params, size)
    return name_own_convnet(params)


def write_weights(
    weights: Weights,
    path: str | os.PathLike[str],
    *,
    layout: str = "timm",
    overwrite: bool = False,
    dtype: str | None = None,
) -> list[Path]:
    """Write weights as they were read; results and errors as of `save_weights`.

    Args:
        weights: what to write.
        path: of the file or directory.
        layout: names of the tensors.
        overwrite: whether existing files may be replaced.
        dtype: as they are if None.
    """
    path = Path(path).expanduser()
    if not weights.num_classes:
        raise ValueError(
            f"{weights.source} has no classification head; load it into a model with "
            "create_model(NAME, num_classes=N, weights=...) and save that."
        )
    if layout != "transformers" and "dist_token" in weights.params:
        _require_both_heads(weights, layout)
    tensors = to_foreign(weights.params, weights.batch_stats, layout, weights.model_name)
    if dtype is not None:
        tensors = {name: _cast(name, tensor, dtype) for name, tensor in tensors.items()}
    weights.facts.preprocessing.require()
    texts = weights.network.metadata()
    texts |= replace(weights.facts, image_size=weights.image_size).metadata()
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, texts, overwrite)
        return [path]
    if path.suffix in (".pth", ".pt", ".bin"):
        if layout == "official":
            _require_registered(weights)
            write_pth(path, {"model": tensors, **texts}, overwrite)
            return [path]
        return write_bare_pth(path, tensors, texts, overwrite)
    if path.suffix and not path.is_dir():
        raise ValueError(
            f"{path} would be a file of unknown kind; name a .safetensors or .pth file, or a "
            "directory without a suffix."
        )
    configs = {"config.json": _config(weights, layout)}
    if layout == "transformers":
        configs |= _preprocessor(weights)
    return write_directory(path, tensors, texts, configs, overwrite)


def _preprocessor(weights: Weights) -> dict[str, dict[str, Any]]:
    """Return the file that transformers prepares images by, if it can be told."""
    config = to_transformers(weights.facts.preprocessing, weights.image_size)
    if config is None:
        _LOG.warning(
            "No %s is written: transformers has no image processor that resizes to cover or fit "
            "%dx%d pixels.",
            PREPROCESSOR,
            *weights.image_size,
        )
        return {}
    return {PREPROCESSOR: config}


def _require_registered(weights: Weights) -> None:
    if unlike := weights.network.unlike_registered():
        raise ValueError(
            f"The reference builds no {weights.model_name} with {unlike}; choose the layout timm "
            "or transformers."
        )


def _config(weights: Weights, layout: str) -> dict[str, Any]:
    if layout == "official":
        raise ValueError("The reference has no directories of weights; name a file to write to.")
    sizes: dict[str, Any] = {
        "num_classes": weights.num_classes,
        "image_size": weights.image_size,
        "num_heads": weights.num_heads,
    }
    if layout == "transformers":
        return transformers_config(weights.params, weights.facts, epsilon=weights.epsilon, **sizes)
    if weights.epsilon > SMALL_EPSILON:
        raise ValueError(
            f"A config.json of timm has no place for layer_norm_eps={weights.epsilon} of "
            f"{weights.source}; choose the layout transformers, or name a .safetensors file."
        )
    return timm_config(weights.model_name, weights.params, weights.facts, **sizes)


def _require_both_heads(weights: Weights, layout: str) -> None:
    if "head_dist" not in weights.params:
        raise ValueError(
            f"{weights.source} has a distillation token but no distillation head, which the "
            f"layout {layout} does not have; write the layout transformers."
        )


def _cast(name: str, tensor: np.ndarray, dtype: str) -> np.ndarray:
    """Change the type of weights; counters keep theirs."""
    if dtype not in WRITTEN_DTYPES:
        raise ValueError(f"There is no dtype {dtype!r}; choose one of {', '.join(WRITTEN_DTYPES)}.")
    if tensor.dtype == np.int64:
        return tensor
    with np.errstate(over="ignore"):
        changed = tensor.astype(WRITTEN_DTYPES[dtype])
    if (np.isfinite(tensor) & ~np.isfinite(changed.astype(np.float32))).any():
        raise ValueError(f"{name} holds values too large for {dtype}; choose another dtype.")
    return changed
