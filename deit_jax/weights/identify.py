"""Which registered model loaded weights are of, by their names and shapes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from deit_jax.messages import quoted
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.layer_norm import LAYER_NORM_EPSILON
from deit_jax.models.registry import find_model, list_models, model_spec
from deit_jax.trees import Tree
from deit_jax.weights.convnet_names import convnet_layout, guess_convnet
from deit_jax.weights.description.config import Description, named_transformer
from deit_jax.weights.description.foreign_parts import check_parts
from deit_jax.weights.description.options import (
    check_epsilon,
    check_heads,
    check_timm_convnet,
    check_timm_transformer,
    check_transformers,
)
from deit_jax.weights.position_embeddings import square_grid

# Of transformers; the encoder of a masked auto-encoder is a ViT.
_MODEL_TYPES = ("vit", "deit", "vit_mae")


def holds_transformer(tensors: Mapping[str, Any]) -> bool:
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
    alike = model_spec(name).same_tensors
    ours = [n for n in (name, *alike) if find_model(n)]
    declared = find_model(said.name)
    if said.words and (declared is None or declared.name not in ours):
        raise ValueError(_other_network(said, name))
    if not any(tensor.endswith("running_mean") for tensor in tensors):
        raise ValueError(
            f"it has the kernels of {name} and no statistics of BatchNorm (running_mean): it is of "
            "a network with another normalisation, as timm's resnet50_gn, or incomplete."
        )
    if declared:
        check_timm_convnet(said, declared)
        return declared.name, ""
    chosen = model if model in ours else name
    # Other names than timm's are of one network alone.
    if not alike or model in ours or convnet_layout(tensors) != "timm":
        return chosen, ""
    others = model_spec(chosen).same_tensors
    loaded = [n for n in others if find_model(n)]
    remedy = "of another network the results are wrong"
    if loaded:
        remedy = f"say so with --model {loaded[0]} if it is that"
    return chosen, (
        f"Nothing in the file names its network, and {' and '.join(others)} of timm have the same "
        f"tensors: taken for {chosen}; {remedy}."
    )


def _other_network(said: Description, name: str) -> str:
    own = said.own_words and name
    remedy = f"; if the name is one of your own, say --model {name}" if own else ""
    return (
        f"{said.where} says that it is {quoted(said.name)}, which is not computed here; read as "
        f"{name or 'a DeiT'} it would give other results{remedy}."
    )


def name_transformer(params: Tree, image_size: tuple[int, int], said: str = "") -> str:
    """Return the registered name of a transformer; "" if no registered one has its shapes.

    `said` is a name that it may have: it counts if its shapes are these, whatever the image size.
    """
    fits = _of_sizes(VitArchitecture.of(params))
    if said in fits:
        return said
    of_size = [name for name in fits if model_spec(name).image_size == image_size]
    return next(iter(of_size + fits), "")


def _of_sizes(sizes: VitArchitecture) -> list[str]:
    """Names of the registered transformers of these sizes, whatever their heads."""
    specs = map(model_spec, list_models())
    return [
        spec.name
        for spec in specs
        if spec.transformer and replace(spec.transformer, num_heads=sizes.num_heads) == sizes
    ]


def transformer_network(params: Tree, said: Description) -> tuple[int, float]:
    """Return the heads and the epsilon that a transformer is described with; (0, ...) if it is not.

    Raises:
        ValueError: another network is described than is computed here, or the tensors show one.
    """
    check_parts(params)
    sizes = VitArchitecture.of(params)
    heads: Any = 0
    epsilon = LAYER_NORM_EPSILON
    if said.words == "transformers":
        if said.name not in _MODEL_TYPES:
            raise ValueError(
                f"{said.where} says model_type={quoted(said.name)}, which is not computed here."
            )
        hidden = params["blocks"]["0"]["mlp"]["fc1"]["kernel"].shape[1]
        heads, epsilon = check_transformers(said, sizes, hidden)
    elif said.words == "timm":
        named = named_transformer(said.name)
        if said.name and named is None:
            raise ValueError(_other_network(said, next(iter(_of_sizes(sizes)), "")))
        check_timm_transformer(said, sizes)
        heads = said.options.get("num_heads", named.num_heads if named else 0)
        epsilon = said.options.get("epsilon", epsilon)
    heads = check_heads(said, heads, sizes.width) if heads != 0 else 0
    return heads, check_epsilon(said, epsilon)


def assumed_transformer(name: str) -> str:
    """Return a sentence about what tensors alone do not show of a registered transformer."""
    if not name:
        return ""
    return (
        "Nothing in the file describes its network: taken for "
        f"{name}, with {model_spec(name).num_heads} "
        "attention heads and the exact GELU (a config.json beside it can say otherwise)."
    )


def transformer_image_size(params: Tree, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (height, width) in pixels, as `size` says or taking the image for a square.

    Raises:
        ValueError: the patches are no square and nothing says what else; or the class token has a
            position embedding where it has none here, or none where it has one.
    """
    sizes = VitArchitecture.of(params)
    patch, prefix, count = sizes.patch_size, sizes.prefix_positions, params["pos_embed"].shape[1]
    patches = count - prefix
    grid = (size[0] // patch) * (size[1] // patch) if size else 0
    if size and grid == patches:
        return size
    if square := square_grid(patches):
        return square[0] * patch, square[1] * patch
    # As many as there are patches where no prefix token has one, one more where the class token
    # has one beside LayerScale.
    other = count - 1 if prefix == 0 else count
    if prefix == 0 and (grid == other or square_grid(other)):
        raise ValueError(
            "it is a vision transformer with LayerScale (init_values) and a position embedding for "
            "its class token, which is not computed here."
        )
    without = "without position embeddings for its class token (no_embed_class)"
    if grid == other:
        raise ValueError(f"it is a vision transformer {without}, which is not computed here.")
    maybe = f"; or it is one {without}, which is not computed here" if square_grid(other) else ""
    raise ValueError(
        f"The {count} position embeddings are for {patches} patches of {patch} pixels, which are "
        "no square, and nothing in the file says how many are in a row (a config.json beside it "
        f"can: image_size, [height, width] in pixels){maybe}."
    )
