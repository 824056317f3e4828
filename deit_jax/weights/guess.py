"""Which registered model loaded weights are of, by their names and shapes."""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from deit_jax.models.functional import Tree
from deit_jax.models.registry import list_models, model_spec
from deit_jax.weights.convnets import convnet_family, guess_convnet
from deit_jax.weights.facts import Facts
from deit_jax.weights.resize import prefix_positions
from deit_jax.weights.trees import flatten


def is_transformer(tensors: Mapping[str, Any]) -> bool:
    """Whether foreign tensors are a vision transformer's: they have a class token."""
    return any(name == "cls_token" or name.endswith(".cls_token") for name in tensors)


def name_convnet(tensors: Mapping[str, np.ndarray], facts: Facts) -> str:
    """Return the registered name of a convnet.

    Raises:
        ValueError: there is no such model here.
    """
    name = guess_convnet({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if name is None:
        first = next(iter(tensors))
        raise ValueError(
            f"No model here has these {len(tensors)} tensors (the first is {first} "
            f"{tensors[first].shape}){f', of {facts.model!r}' if facts.model else ''}; "
            "`python -m deit_jax models` lists those that can be loaded."
        )
    # timm's tf_efficientnet have the shapes of efficientnet, but pad differently.
    same_shapes = facts.model in list_models() and facts.model.endswith(name)
    return facts.model if same_shapes else name


def name_own_convnet(params: Tree) -> str:
    """Return the registered name of a convnet's tree of ours; "" if there is none.

    Of the two numerics of an EfficientNet, which have the same shapes, the first is named.
    """
    kernels = {
        path[:-1]: (array.shape[3], array.shape[2], *array.shape[:2])
        for path, array in flatten(params).items()
        if path[-1] == "kernel" and array.ndim == 4 and array.shape[0] > 1
    }
    convnets = [name for name in list_models() if convnet_family(name)]
    # The constructor's first argument is its Architecture.
    return next(
        (
            n
            for n in convnets
            if cast(Any, model_spec(n).build).args[0].spatial_kernels() == kernels
        ),
        "",
    )


def name_transformer(params: Tree, image_size: tuple[int, int], facts: Facts) -> str:
    """Return the registered name of a transformer; "" if no registered one has its shapes."""
    fits = [name for name in list_models() if _matches(name, params)]
    if facts.model in fits:
        return facts.model
    of_size = [name for name in fits if model_spec(name).image_size == image_size]
    return next(iter(of_size + fits), "")


def transformer_image_size(params: Tree, facts: Facts) -> tuple[int, int]:
    """Return (height, width) in pixels, as the facts say or taking the image for a square.

    Raises:
        ValueError: the patches are no square and nothing says what else.
    """
    patch = params["patch_embed"]["proj"]["kernel"].shape[0]
    patches = params["pos_embed"].shape[1] - prefix_positions(params)
    size = facts.image_size
    if size and (size[0] // patch) * (size[1] // patch) == patches:
        return size
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(
            f"The position embeddings are for {patches} patches of {patch} pixels, which are no "
            "square, and nothing in the file says how many are in a row."
        )
    return side * patch, side * patch


def _matches(name: str, params: Tree) -> bool:
    # Transformers are registered with their sizes as the constructor's keywords.
    sizes = getattr(model_spec(name).build, "keywords", {})
    if "patch_size" not in sizes:
        return False
    shape = (sizes["patch_size"], sizes["patch_size"], 3, sizes["width"])
    return (
        params["patch_embed"]["proj"]["kernel"].shape == shape
        and len(params["blocks"]) == sizes["depth"]
        and ("dist_token" in params) == sizes["distilled"]
        and ("ls1" in params["blocks"]["0"]) == sizes["deit3"]
    )
