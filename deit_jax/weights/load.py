"""Reading weights of any known kind, and loading them into a model."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
from flax import nnx

from deit_jax.models.functional import (
    Builder,
    Classifier,
    ModelFunction,
    Tree,
    abstract,
    split,
)
from deit_jax.models.registry import create_model, model_builder, model_spec
from deit_jax.weights.adapt import Fitted, Grids, fit
from deit_jax.weights.facts import Facts, facts_of_file
from deit_jax.weights.files import WeightFile, read_file
from deit_jax.weights.guess import (
    is_transformer,
    name_convnet,
    name_transformer,
    transformer_image_size,
)
from deit_jax.weights.hub import locate
from deit_jax.weights.names import detect_layout, from_foreign
from deit_jax.weights.published import PublishedFile
from deit_jax.weights.report import LoadReport, Row
from deit_jax.weights.resize import Grid, ResizeRule
from deit_jax.weights.trees import flatten, nest

_LOG = logging.getLogger("deit_jax")
# Where the last array of a head lies: transformers, RegNetY, ResNet, EfficientNet.
_HEADS = (("head", "kernel"), ("head", "fc", "kernel"), ("fc", "kernel"), ("classifier", "kernel"))


@dataclass(frozen=True)
class Weights:
    """Weights as they were read, in our names and axis order.

    Attributes:
        source: where they are from, for messages.
        layout: "timm" (the reference's too), "transformers", "torchvision" or "deit_jax".
        model_name: registered name; "" for a transformer of sizes that are not registered.
        num_classes: of each head.
        image_size: (height, width) in pixels.
        params: arrays of the types in the file. A transformer read from a class of transformers
            without second head has a `dist_token` but no `head_dist`.
        batch_stats: BatchNorm statistics, {} for transformers.
        facts: normalisation, evaluation crop, names of the classes.
        published: which file of the authors of DeiT it is, if it is one.
        left_over: rows for tensors that nothing needs.
    """

    source: str
    layout: str
    model_name: str
    num_classes: int
    image_size: tuple[int, int]
    params: Tree
    batch_stats: Tree
    facts: Facts
    published: PublishedFile | None = None
    left_over: tuple[Row, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about where the weights are from."""
        height, width = self.image_size
        name = self.model_name or "a vision transformer of its own sizes"
        kind = f"{name} for {self.num_classes} classes at {height}x{width} pixels"
        return (f"Read as {kind}, in the layout of {self.layout}.", *self.facts.notes)


def read_weights(
    path: str | os.PathLike[str],
    *,
    which: str = "model",
    model: str = "",
    checkpoint: str | int = "best",
    download: bool = False,
) -> Weights:
    """Read weights of any known kind; what kind is seen from the content.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file of the reference, timm, transformers,
            torchvision or of ours; a directory with such a file; a run directory of train.py or
            one of its checkpoints; or the name of a Hugging Face repository in the local cache.
        which: "model", or "ema" for the moving average in a training checkpoint.
        model: registered name, where it is not to be recognised from names and shapes.
        checkpoint: of a run directory: "best", "latest" or a step.
        download: fetch a repository that is not in the cache.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is damaged, not known, not complete, or not of the model that was named.
    """
    where = locate(os.fspath(path), download=download)
    run = _run_of(where, checkpoint)
    weights = _read_run(*run, which) if run else _interpret(read_file(where, which), model)
    if model and weights.model_name != model:
        raise ValueError(
            f"{weights.source} holds {weights.model_name or 'another architecture'}, not {model}."
        )
    if weights.model_name:
        fit_to_itself(weights)
    return weights


def fit_weights(
    weights: Weights,
    target: tuple[Tree, Tree],
    image_size: tuple[int, int],
    *,
    position_resize: ResizeRule = "reference",
) -> Fitted:
    """Fit weights to a model's parameters and statistics (arrays or shapes); see `adapt.fit`.

    Args:
        weights: as read.
        target: parameters and BatchNorm statistics of the model.
        image_size: (height, width) of the model, in pixels.
        position_resize: "reference" or "timm"; see `resize.resize_positions`.

    Raises:
        ValueError: they do not fit.
    """
    grids = Grids(
        _grid(weights.params, weights.image_size), _grid(target[0], image_size), position_resize
    )
    return fit(
        (weights.params, weights.batch_stats),
        target,
        grids,
        source=weights.source,
        left_over=weights.left_over,
        notes=weights.notes,
    )


def fit_to_itself(weights: Weights) -> Fitted:
    """Fit weights to the registered model they are of.

    Raises:
        ValueError: no registered model has their sizes, or they do not fill it.
    """
    _, *target = abstract(_builder(weights))
    return fit_weights(weights, (target[0], target[1]), weights.image_size)


def complete_model(weights: Weights) -> tuple[ModelFunction, Tree, Tree]:
    """Return function, parameters and BatchNorm statistics of the model that weights are of.

    Raises:
        ValueError: as `fit_to_itself`; or something would have to be initialised afresh.
    """
    function, params, batch_stats = abstract(_builder(weights))
    fitted = fit_weights(weights, (params, batch_stats), weights.image_size)
    if fitted.report.warning:
        raise ValueError(f"{weights.source} is not complete: {fitted.report.warning}")
    return function, fitted.params, fitted.batch_stats


def _builder(weights: Weights) -> Builder:
    if not weights.model_name:
        raise ValueError(
            f"{weights.source} is a vision transformer of sizes that no model here has; "
            "`python -m deit_jax models` lists those that there are."
        )
    return model_builder(
        weights.model_name, num_classes=weights.num_classes, image_size=weights.image_size
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
    bridged as `adapt.fit` says, and the report tells what became of every array.

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
    weights = read_weights(path, which=which, checkpoint=checkpoint, download=download)
    return _load_into(model, weights, position_resize)


def create_loaded(
    name: str, path: str | os.PathLike[str], *, seed: int = 0, **options: Any
) -> Classifier:
    """Build a model and load weights into it: `create_model` with `weights`; see there."""
    weights = read_weights(path)
    if options.get("num_classes") is None:
        options["num_classes"] = weights.num_classes
    model = create_model(name, seed=seed, **options)
    report = _load_into(model, weights, "reference")
    _LOG.info("%s", report.table())
    return model


def _load_into(model: nnx.Module | Classifier, weights: Weights, rule: ResizeRule) -> LoadReport:
    _, params, batch_stats = split(model)
    size = cast(Classifier, model).image_size
    fitted = fit_weights(weights, (params, batch_stats), size, position_resize=rule)
    nnx.update(model, *_placed(fitted, params, batch_stats))
    if fitted.report.warning:
        _LOG.warning("%s", fitted.report.warning)
    return fitted.report


def _placed(fitted: Fitted, params: Tree, batch_stats: Tree) -> list[Tree]:
    """Put the arrays where those of the model are."""
    pairs = ((fitted.params, params), (fitted.batch_stats, batch_stats))
    return [
        nest(
            {
                path: jax.device_put(array, getattr(flatten(old)[path], "sharding", None))
                for path, array in flatten(new).items()
            }
        )
        for new, old in pairs
    ]


def _grid(params: Tree, image_size: tuple[int, int]) -> Grid | None:
    """Patches along height and width; None for convnets."""
    if "pos_embed" not in params:
        return None
    patch = params["patch_embed"]["proj"]["kernel"].shape[0]
    return image_size[0] // patch, image_size[1] // patch


def _interpret(file: WeightFile, model: str) -> Weights:
    """Translate a file's tensors, and say what model they are of."""
    facts = facts_of_file(file)
    layout = detect_layout(file.tensors)
    try:
        if is_transformer(file.tensors):
            params, batch_stats, extra = from_foreign(file.tensors, layout)
            size = transformer_image_size(params, facts)
            name = name_transformer(params, size, facts.of(model or facts.model, size))
        else:
            name = model or name_convnet(file.tensors, facts)
            _, *shapes = abstract(model_builder(name))
            paths = list(flatten(shapes[0]) | flatten(shapes[1]))
            params, batch_stats, extra = from_foreign(file.tensors, layout, name, paths)
            size = facts.image_size or model_spec(name).image_size
        classes = _num_classes(params)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    rows = [Row(n, file.tensors[n].shape, "left over", "not part of the classifier") for n in extra]
    return Weights(
        str(file.path),
        layout,
        name,
        classes,
        size,
        params,
        batch_stats,
        facts,
        file.published,
        tuple(rows),
    )


def _run_of(path: Path, checkpoint: str | int) -> tuple[Path, str | int] | None:
    """Return run directory and checkpoint, if the path is of a run of train.py."""
    if path.parent.name == "checkpoints" and path.name.isdigit():
        path, checkpoint = path.parent.parent, int(path.name)
    is_run = (path / "checkpoints").is_dir() and (path / "config.json").is_file()
    return (path, checkpoint) if is_run else None


def _read_run(run: Path, checkpoint: str | int, which: str) -> Weights:
    # Imported here, since training lies above weights: it loads them into new runs.
    from deit_jax.training.checkpoint import load_weights as read_checkpoint
    from deit_jax.training.run_directory import load_run

    if which not in ("model", "ema"):
        raise ValueError(f"There are no {which!r} weights; choose model or ema.")
    config = load_run(run).config
    params, batch_stats, meta = read_checkpoint(
        run / "checkpoints", checkpoint, "params" if which == "model" else "ema"
    )
    model, augment = config["model"], config["augment"]
    size = (int(model["image_size"][0]), int(model["image_size"][1]))
    facts = Facts(
        model["name"],
        size,
        tuple(augment["mean"]),
        tuple(augment["std"]),
        config["data"]["eval_crop_ratio"],
        notes=(f"Step {meta['step']:,} of the run, {which} weights.",),
    )
    return Weights(
        str(run),
        "deit_jax",
        model["name"],
        model["num_classes"],
        size,
        params,
        batch_stats,
        facts,
    )


def _num_classes(params: Tree) -> int:
    flat = flatten(params)
    kernel = next((flat[path] for path in _HEADS if path in flat), None)
    if kernel is None:
        raise ValueError("there is no classification head; load weights of a classifier.")
    return kernel.shape[-1]
