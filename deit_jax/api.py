"""The one face of the package: build models, load trained ones, load weights and save them."""

import inspect
import logging
import os
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from deit_jax.evaluation.loaded import LoadedModel
from deit_jax.evaluation.predict import names_of_classes
from deit_jax.models.architecture import is_transformer
from deit_jax.models.functional import Classifier
from deit_jax.models.registry import list_models, model_builder
from deit_jax.runs.open_weights import read_weights
from deit_jax.seeds import seed_key
from deit_jax.weights.description.network import network_of
from deit_jax.weights.description.remembered import remember
from deit_jax.weights.load import complete_model, load_into
from deit_jax.weights.position_embeddings import ResizeRule
from deit_jax.weights.report import LoadReport
from deit_jax.weights.save import save_weights

__all__ = [
    "LoadedModel",
    "create_model",
    "list_models",
    "load_model",
    "load_weights",
    "save_weights",
]

_LOG = logging.getLogger("deit_jax")

_TIMM_OPTIONS = {
    "img_size": "image_size",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "checkpoint_path": "weights",
    "pretrained": "weights (a path)",
    "model_name": "name",
}


def create_model(
    name: str, *, seed: int = 0, weights: str | os.PathLike[str] = "", **options: Any
) -> Classifier:
    """Build a model, freshly initialised or with the weights of a file.

    Args:
        name: one of `list_models()`.
        seed: of the initialisation.
        weights: whatever `deit_jax.load_weights` reads. The number of classes and the image size
            are then the file's unless `num_classes` and `image_size` are given; heads for other
            numbers keep their initialisation, and a warning in the log says so.
        **options: as for `model_builder`.

    Returns:
        A module: `model(images)` gives inference logits, `model.head_logits(images)` both heads'.

    Raises:
        FileNotFoundError, ValueError: the weights are not there, damaged or of another model; or
            an option has an impossible value.
        TypeError: there is no such option; names ours where it is one of timm's.
    """
    for option in options.keys() - inspect.signature(model_builder).parameters.keys():
        ours = _TIMM_OPTIONS.get(option)
        hint = f"it is called {ours} here." if ours else "see its documentation."
        raise TypeError(f"create_model() has no argument {option!r}; {hint}")
    if weights:
        return _create_loaded(name, weights, seed, options)
    return _build(name, seed, options)


def _build(name: str, seed: int, options: dict[str, Any]) -> Classifier:
    return cast(Classifier, model_builder(name, **options)(nnx.Rngs(seed_key(seed))))


def _create_loaded(
    name: str, path: str | os.PathLike[str], seed: int, options: dict[str, Any]
) -> Classifier:
    weights = read_weights(path, like=name)
    if options.get("num_classes") is None:
        # A backbone has none: then the model's own default.
        options["num_classes"] = weights.num_classes or None
    # A convnet takes any size, and its file need not say one.
    transformer = is_transformer(weights.params)
    if options.get("image_size") is None and (transformer or weights.facts.image_size):
        options["image_size"] = weights.image_size
    if weights.described and transformer:
        options = weights.network.options() | options
    model = _build(name, seed, options)
    report = load_into(model, weights)
    _LOG.info("%s", report.table())
    return model


def load_model(
    path: str | os.PathLike[str],
    *,
    which: str = "",
    checkpoint: str | int = "best",
    download: bool = False,
) -> LoadedModel:
    """Load a trained classifier with its class names and preprocessing, in one line.

    Args:
        path: a run of train.py, a file or directory of weights of any layout, a cached Hugging Face
            repository, or a short name such as "lite0": whatever `read_weights` reads.
        which: "model", or "ema" for the moving average in a run or training checkpoint; by default
            of a run what its configuration evaluates, of others the model.
        checkpoint: of a run directory: "best", "latest" or a step.
        download: fetch a Hugging Face repository that is not in the cache.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or the weights are not complete, or of no
            model that is known here.
    """
    weights = read_weights(path, which=which, checkpoint=checkpoint, download=download)
    function, params, batch_stats = complete_model(weights)
    model = function.merge(*jax.tree.map(jnp.asarray, (params, batch_stats)))
    remember(model, weights.facts)
    names, missing = names_of_classes(weights)
    preprocessing = weights.facts.preprocessing
    notes = (*weights.notes, missing) if missing else weights.notes
    return LoadedModel(
        model,
        weights.model_name,
        weights.source,
        tuple(names),
        weights.image_size,
        preprocessing,
        notes,
    )


def load_weights(
    model: nnx.Module | Classifier,
    path: str | os.PathLike[str],
    *,
    which: str = "model",
    position_resize: ResizeRule = "reference",
    checkpoint: str | int = "best",
    download: bool = False,
) -> LoadReport:
    """Load weights into a model, in place; if that fails the model is as it was.

    Another resolution, another number of classes, and a plain checkpoint for a distilled model are
    bridged as `weights.fit.fit` says, and the report tells what became of every array.

    Args:
        model: any model of `create_model`.
        path: as for `read_weights`.
        which: "model", or "ema" for the moving average in a training checkpoint.
        position_resize: how position embeddings get to another resolution: "reference" as the
            reference's fine-tuning does, "timm" with antialiasing.
        checkpoint: of a run directory: "best", "latest" or a step.
        download: fetch a Hugging Face repository that is not in the cache.

    Returns:
        The report; `print(report.table())` shows it.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or the weights do not fit the model.
    """
    like = network_of(model).name
    weights = read_weights(path, which=which, checkpoint=checkpoint, download=download, like=like)
    return load_into(model, weights, position_resize)
