"""Weights in models: fitted to one, as the model they are of, or laid over a live one."""

import logging
from dataclasses import replace
from typing import Any, cast

import jax
from flax import nnx

from deit_jax.models.architecture import VitArchitecture, is_transformer
from deit_jax.models.functional import Classifier, ModelFunction, abstract, split
from deit_jax.models.registry import model_builder
from deit_jax.trees import Tree, flatten, nest
from deit_jax.weights.description.network import Network, network_difference, network_of
from deit_jax.weights.description.remembered import remember
from deit_jax.weights.fit import Fitted, Grids, fit
from deit_jax.weights.position_embeddings import Grid, ResizeRule
from deit_jax.weights.reading import Weights
from deit_jax.weights.report import LoadReport

_LOG = logging.getLogger("deit_jax")


def fit_weights(
    weights: Weights,
    target: tuple[Tree, Tree],
    image_size: tuple[int, int],
    network: Network,
    *,
    position_resize: ResizeRule = "reference",
) -> Fitted:
    """Fit weights to a model's parameters and statistics (arrays or shapes); see `fit.fit`.

    Args:
        weights: as read.
        target: parameters and BatchNorm statistics of the model.
        image_size: (height, width) of the model, in pixels.
        network: what the trees do not show of the model.
        position_resize: "reference" or "timm"; see `resize_positions`.

    Raises:
        ValueError: they do not fit, or are described as of a network that computes something else.
    """
    grids = Grids(
        grid_of(weights.params, weights.image_size), grid_of(target[0], image_size), position_resize
    )
    try:
        fitted = fit(
            (weights.params, weights.batch_stats),
            target,
            grids,
            source=weights.source,
            left_over=weights.left_over,
            notes=weights.notes,
        )
    except ValueError as error:
        # Names say more than shapes, where there are both.
        if not weights.model_name or weights.model_name == network.name or not network.name:
            raise
        raise ValueError(
            f"{str(error).rstrip('.')}; they are of {weights.model_name}: build that in place of "
            f"{network.name} (in a run --config.model.name={weights.model_name})."
        ) from error
    described = weights.described and network_difference(weights.source, weights.network, network)
    if not described:
        return fitted
    notes = (*fitted.report.notes, described)
    return replace(fitted, report=replace(fitted.report, notes=notes))


def fit_to_itself(weights: Weights) -> Fitted:
    """Fit weights to the registered model they are of.

    Raises:
        ValueError: no registered model has their sizes, they do not fill it, or are of a backbone
            without head.
    """
    return _own(weights, weights.image_size)[1]


def complete_model(
    weights: Weights, image_size: tuple[int, int] | None = None, **types: Any
) -> tuple[ModelFunction, Tree, Tree]:
    """Return function, parameters and BatchNorm statistics of the model that weights are of.

    Args:
        weights: as read.
        image_size: (height, width) in pixels to build it for; that of the weights if None.
        **types: `dtype` and `residual_dtype` of `model_builder`.

    Raises:
        ValueError: as `fit_to_itself`; or something would have to be initialised afresh.
    """
    function, fitted = _own(weights, image_size or weights.image_size, **types)
    if fitted.report.warning:
        raise ValueError(f"{weights.source} is not complete: {fitted.report.warning}")
    return function, fitted.params, fitted.batch_stats


def _own(
    weights: Weights, image_size: tuple[int, int], **types: Any
) -> tuple[ModelFunction, Fitted]:
    """Build the model that weights are of, in shapes, and fit them to it."""
    if not weights.model_name:
        raise ValueError(
            f"{weights.source} is a vision transformer of sizes that no model here has; "
            "`python -m deit_jax models` lists those that there are."
        )
    if not weights.num_classes:
        raise ValueError(
            f"{weights.source} has no classification head, so it is no classifier but a start: "
            "train it on your data (--config.model.weights), or give it to "
            "create_model(weights=...), either of which makes a new head."
        )
    build = model_builder(
        weights.model_name,
        num_classes=weights.num_classes,
        image_size=image_size,
        **types,
        **weights.network.options(),
    )
    function, params, batch_stats = abstract(build)
    return function, fit_weights(weights, (params, batch_stats), image_size, weights.network)


def load_into(
    model: nnx.Module | Classifier, weights: Weights, rule: ResizeRule = "reference"
) -> LoadReport:
    """Lay weights over those of a live model; if that fails the model is as it was.

    Raises:
        ValueError: as `fit_weights`.
    """
    _, params, batch_stats = split(model)
    size = cast(Classifier, model).image_size
    network = network_of(model)
    fitted = fit_weights(weights, (params, batch_stats), size, network, position_resize=rule)
    nnx.update(model, *_placed(fitted, params, batch_stats))
    remember(model, weights.facts)
    if fitted.report.warning:
        _LOG.warning("%s", fitted.report.warning)
    return fitted.report


def _placed(fitted: Fitted, params: Tree, batch_stats: Tree) -> list[Tree]:
    """Put the arrays where those of the model are."""
    placed = []
    for new, old in ((fitted.params, params), (fitted.batch_stats, batch_stats)):
        present = flatten(old)
        arrays = {
            path: jax.device_put(array, getattr(present[path], "sharding", None))
            for path, array in flatten(new).items()
        }
        placed.append(nest(arrays))
    return placed


def grid_of(params: Tree, image_size: tuple[int, int]) -> Grid | None:
    """Patches along height and width; None for convnets."""
    if not is_transformer(params):
        return None
    patch = VitArchitecture.of(params).patch_size
    return image_size[0] // patch, image_size[1] // patch
