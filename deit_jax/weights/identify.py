"""Which registered model loaded weights are of, by their names and shapes."""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from deit_jax.messages import quoted
from deit_jax.models.layers import LAYER_NORM_EPSILON
from deit_jax.models.registry import list_models, model_spec
from deit_jax.trees import Tree, flatten
from deit_jax.weights.convnet_names import convnet_family, convnet_layout, guess_convnet
from deit_jax.weights.description.config import (
    Description,
    default_heads,
    registered_convnet,
    same_tensors,
)
from deit_jax.weights.description.facts import Facts
from deit_jax.weights.description.foreign_parts import check_parts
from deit_jax.weights.description.options import (
    check_heads,
    check_timm_convnet,
    check_timm_transformer,
    check_transformers,
)
from deit_jax.weights.position_embeddings import prefix_positions

# Of transformers; the encoder of a masked auto-encoder is a ViT.
_MODEL_TYPES = ("vit", "deit", "vit_mae")


def is_transformer(tensors: Mapping[str, Any]) -> bool:
    """Return whether foreign tensors are a vision transformer's: they have a class token."""
    return any(name == "cls_token" or name.endswith(".cls_token") for name in tensors)


def name_convnet(
    tensors: Mapping[str, np.ndarray], said: Description, model: str = ""
) -> tuple[str, str]:
    """Return the registered name of a convnet, and a note where it had to be assumed.

    Args:
        tensors: by their foreign names.
        said: what the file says of its network.
        model: registered name, by which networks of the same tensors are told apart.

    Raises:
        ValueError: there is no such model here, or what is said is another network.
    """
    name = guess_convnet({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if name is None:
        first = next(iter(tensors))
        raise ValueError(
            f"No model here has these {len(tensors)} tensors (the first is {first} "
            f"{tensors[first].shape}){f', of {said.name!r}' if said.name else ''}; "
            "`python -m deit_jax models` lists those that can be loaded."
        )
    alike = same_tensors(name)
    ours = [n for n in (name, *alike) if n in list_models()]
    declared = registered_convnet(said.name)
    if said.words and declared not in ours:
        raise ValueError(_other_network(said, name))
    if not any(tensor.endswith("running_mean") for tensor in tensors):
        raise ValueError(
            f"it has the kernels of {name} and no statistics of BatchNorm (running_mean): it is of "
            "a network with another normalisation, as timm's resnet50_gn, or incomplete."
        )
    if said.words:
        check_timm_convnet(said, declared)
        return declared, ""
    chosen = model if model in ours else name
    # torchvision's own names are of one network alone.
    if not alike or model in ours or convnet_layout(tensors) == "torchvision":
        return chosen, ""
    others = same_tensors(chosen)
    loaded = [n for n in others if n in list_models()]
    remedy = "of another network the results are wrong"
    if loaded:
        remedy = f"say so with --model {loaded[0]} if it is that"
    return chosen, (
        f"Nothing in the file names its network, and {' and '.join(others)} of timm have the same "
        f"tensors: taken for {chosen}; {remedy}."
    )


def _other_network(said: Description, name: str) -> str:
    remedy = f"; if the name is one of your own, say --model {name}" if said.own_words else ""
    return (
        f"{said.where} says that it is {quoted(said.name)}, which is not computed here; read as "
        f"{name} it would give other results{remedy}."
    )


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


def transformer_network(params: Tree, said: Description) -> tuple[int, float]:
    """Return the heads and the epsilon that a transformer is described with; (0, ...) if it is not.

    Raises:
        ValueError: another network is described than is computed here, or the tensors show one.
    """
    check_parts(params)
    sizes = _sizes(params)
    layer_scale = "ls1" in params["blocks"]["0"]
    heads: Any = 0
    epsilon = LAYER_NORM_EPSILON
    if said.words == "transformers":
        if said.name not in _MODEL_TYPES:
            raise ValueError(
                f"{said.where} says model_type={quoted(said.name)}, which is not computed here."
            )
        heads, epsilon = check_transformers(said, sizes)
    elif said.words == "timm":
        known = default_heads(said.name) if said.name else 0
        if known is None:
            fits = next((name for name in list_models() if _matches(name, params)), "a DeiT")
            raise ValueError(_other_network(said, fits))
        check_timm_transformer(said, sizes, layer_scale)
        heads = said.options.get("num_heads", known)
        epsilon = said.options.get("epsilon", epsilon)
    return (check_heads(said, heads, sizes["width"]) if heads != 0 else 0), epsilon


def assumed_transformer(name: str) -> str:
    """Return a sentence about what tensors alone do not show of a registered transformer."""
    if not name:
        return ""
    return (
        f"Nothing in the file describes its network: taken for {name}, with {default_heads(name)} "
        "attention heads and the exact GELU (a config.json beside it can say otherwise)."
    )


def _sizes(params: Tree) -> dict[str, int]:
    """Sizes of a transformer, from its tensors."""
    patch, _, _, width = params["patch_embed"]["proj"]["kernel"].shape
    hidden = params["blocks"]["0"]["mlp"]["fc1"]["kernel"].shape[1]
    return {"patch": patch, "width": width, "depth": len(params["blocks"]), "hidden": hidden}


def transformer_image_size(params: Tree, facts: Facts) -> tuple[int, int]:
    """Return (height, width) in pixels, as the facts say or taking the image for a square.

    Raises:
        ValueError: the patches are no square and nothing says what else; or the class token has a
            position embedding where it has none here, or none where it has one.
    """
    patch = params["patch_embed"]["proj"]["kernel"].shape[0]
    count, prefix = params["pos_embed"].shape[1], prefix_positions(params)
    patches, size = count - prefix, facts.image_size
    grid = (size[0] // patch) * (size[1] // patch) if size else 0
    if size and grid == patches:
        return size
    if _is_square(patches):
        side = math.isqrt(patches) * patch
        return side, side
    # As many as there are patches where no prefix token has one, one more where the class token
    # has one beside LayerScale.
    other = count - 1 if prefix == 0 else count
    if prefix == 0 and (grid == other or _is_square(other)):
        raise ValueError(
            "it is a vision transformer with LayerScale (init_values) and a position embedding for "
            "its class token, which is not computed here."
        )
    without = "without position embeddings for its class token (no_embed_class)"
    if grid == other:
        raise ValueError(f"it is a vision transformer {without}, which is not computed here.")
    maybe = f"; or it is one {without}, which is not computed here" if _is_square(other) else ""
    raise ValueError(
        f"The {count} position embeddings are for {patches} patches of {patch} pixels, which are "
        "no square, and nothing in the file says how many are in a row (a config.json beside it "
        f"can: image_size, [height, width] in pixels){maybe}."
    )


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


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
