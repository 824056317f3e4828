"""The one table of names: our parameter paths, and the tensors of PyTorch's implementations.

It is read in both directions. The reference repository and timm use the same names but for the
LayerScale of DeiT III, where both are read; transformers has one set in its files and, from version
5, another in memory: both are read, the first is written. Convnets have their rules in
`weights.convnet_names`.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deit_jax.trees import Tree, TreePath, flatten, nest
from deit_jax.weights.convnet_names import convnet_layout, convnet_names
from deit_jax.weights.description.foreign_parts import foreign_part

TRANSFORMER_LAYOUTS = ("official", "timm", "transformers")
"""What can be written. The names of torchvision and efficientnet_pytorch are only read."""

Names = tuple[str, ...]
"""Tensors that make up one array of ours, one after the other along the output axis."""


class _Row(NamedTuple):
    ours: str  # as in timm and the reference
    leaves: Names
    files: Names = ()  # in files of transformers; of {root} and {i} in both sets; () for none
    memory: Names = ()  # in transformers 5, where it differs
    reference: str = ""  # the whole name in the reference's files, where it is not timm's


_NORM, _DENSE, _BARE = ("scale", "bias"), ("kernel", "bias"), ("",)
_OLD, _NEW = "{root}.encoder.layer.{i}.", "{root}.layers.{i}."
_QKV = ("query", "key", "value")

# Source of the right-hand names: transformers, models/deit and models/vit.
_TABLE = (
    _Row("cls_token", _BARE, ("{root}.embeddings.cls_token",)),
    _Row("dist_token", _BARE, ("{root}.embeddings.distillation_token",)),
    _Row("pos_embed", _BARE, ("{root}.embeddings.position_embeddings",)),
    _Row("patch_embed.proj", _DENSE, ("{root}.embeddings.patch_embeddings.projection",)),
    _Row("blocks.{i}.norm1", _NORM, (_OLD + "layernorm_before",), (_NEW + "layernorm_before",)),
    _Row(
        "blocks.{i}.attn.qkv",
        _DENSE,
        tuple(f"{_OLD}attention.attention.{part}" for part in _QKV),
        tuple(f"{_NEW}attention.{part[0]}_proj" for part in _QKV),
    ),
    _Row(
        "blocks.{i}.attn.proj",
        _DENSE,
        (_OLD + "attention.output.dense",),
        (_NEW + "attention.o_proj",),
    ),
    _Row("blocks.{i}.ls1", ("gamma",), reference="blocks.{i}.gamma_1"),
    _Row("blocks.{i}.norm2", _NORM, (_OLD + "layernorm_after",), (_NEW + "layernorm_after",)),
    _Row("blocks.{i}.mlp.fc1", _DENSE, (_OLD + "intermediate.dense",), (_NEW + "mlp.fc1",)),
    _Row("blocks.{i}.mlp.fc2", _DENSE, (_OLD + "output.dense",), (_NEW + "mlp.fc2",)),
    _Row("blocks.{i}.ls2", ("gamma",), reference="blocks.{i}.gamma_2"),
    _Row("norm", _NORM, ("{root}.layernorm",)),
    # One head alone is plainly "classifier".
    _Row("head", _DENSE, ("{class_head}",), ("classifier",)),
    _Row("head_dist", _DENSE, ("distillation_classifier",)),
)
_SUFFIX = {"kernel": ".weight", "scale": ".weight", "bias": ".bias", "gamma": ".gamma", "": ""}

# Tensors without a part in classification: BatchNorm's counter of batches, what transformers adds
# for other tasks, and the decoder that masked auto-encoders (arXiv 2111.06377) are trained with.
_DISPENSABLE = re.compile(
    r"num_batches_tracked$|^(deit|vit)\.(pooler\.|embeddings\.mask_token$)"
    r"|^mask_token$|^decoder[._]"
)


def detect_layout(names: Mapping[str, Any]) -> str:
    """Tell the layouts apart by tensor names, those of convnets included.

    The reference's names are timm's, so "official" are only the weights of DeiT III.
    """
    if any(name.startswith(("deit.", "vit.")) for name in names):
        return "transformers"
    if any(name.endswith(".gamma_1") for name in names):
        return "official"
    return convnet_layout(names) or "timm"


def to_foreign(
    params: Tree, batch_stats: Tree, layout: str, model_name: str = ""
) -> dict[str, np.ndarray]:
    """Return the tensors of a model under the names, and in the axis order, of a layout.

    Args:
        params: complete parameter tree.
        batch_stats: its BatchNorm statistics, or {}.
        layout: one of `TRANSFORMER_LAYOUTS`.
        model_name: registered name; only convnets need it.

    Raises:
        ValueError: there is no such layout, or it has no names for this model.
    """
    if layout not in TRANSFORMER_LAYOUTS:
        raise ValueError(
            f"There is no layout {layout!r}; choose one of {', '.join(TRANSFORMER_LAYOUTS)}."
        )
    arrays = flatten(params) | flatten(batch_stats)
    if layout == "transformers" and any(path[-1] == "gamma" for path in arrays):
        raise ValueError(
            "transformers has no DeiT III (its transformer knows no LayerScale); choose timm."
        )
    table = _alternatives(list(arrays), layout, model_name)
    tensors = {}
    for path, array in arrays.items():
        names = table[path][0]
        parts = np.split(_to_torch(np.asarray(array)), len(names))
        tensors.update(
            {n: np.ascontiguousarray(part) for n, part in zip(names, parts, strict=True)}
        )
    for name in list(tensors):
        if name.endswith(".running_mean"):
            # Not used by anything, but PyTorch's strict loading asks for it.
            tensors[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def from_foreign(
    tensors: Mapping[str, np.ndarray],
    layout: str,
    convnet: str = "",
    paths: Sequence[TreePath] = (),
) -> tuple[Tree, Tree, list[str]]:
    """Return tensors of a layout as trees of ours, as far as they are there, types unchanged.

    Args:
        tensors: by name.
        layout: as `detect_layout` tells it.
        convnet: registered name, if it is no transformer; then `paths` are its arrays.
        paths: all arrays of the convnet, statistics included.

    Returns:
        Parameters, BatchNorm statistics, and the names of tensors nothing needs.

    Raises:
        ValueError: there are tensors that a model of ours has no place for.
    """
    paths = paths if convnet else list(transformer_paths(tensors, layout))
    found, used = {}, set[str]()
    for path, alternatives in _alternatives(paths, layout, convnet).items():
        for names in alternatives:
            if all(name in tensors for name in names):
                parts = [tensors[name] for name in names]
                joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
                found[path] = _from_torch(joined, path[-1])
                used.update(names)
                break
    left_over = [name for name in tensors if name not in used]
    unknown = [name for name in left_over if not _DISPENSABLE.search(name)]
    if unknown and not convnet and (part := foreign_part(unknown)):
        raise ValueError(f"it is a vision transformer with {part}, which is not computed here.")
    if unknown:
        raise ValueError(
            f"The weights hold {len(unknown)} tensors that {convnet or 'DeiT'} does not have, such "
            f"as {unknown[0]} {tensors[unknown[0]].shape}: they are of another architecture."
        )
    statistics = {path: found.pop(path) for path in list(found) if path[-1] in ("mean", "var")}
    return nest(found), nest(statistics), left_over


def transformer_paths(names: Mapping[str, np.ndarray], layout: str) -> Iterator[TreePath]:
    """All parameters that a transformer of as many blocks, with or without token, can have."""
    distilled = any(name.endswith(("dist_token", "distillation_token")) for name in names)
    for row in _TABLE:
        if row.ours in ("dist_token", "head_dist") and not distilled:
            continue
        blocks = itertools.count() if "{i}" in row.ours else [0]
        for i in blocks:
            rows = [(*row.ours.format(i=i).split("."), leaf) for leaf in row.leaves]
            if "{i}" in row.ours and not any(
                name in names
                for path in rows
                for alternative in _transformer_names(path, layout, distilled, distilled)
                for name in alternative
            ):
                break
            yield from (path if path[-1] else path[:-1] for path in rows)


def _alternatives(
    paths: Sequence[TreePath], layout: str, model_name: str
) -> dict[TreePath, tuple[Names, ...]]:
    """For each array of ours, the names it may have; the first is the one to write."""
    if ("pos_embed",) in paths or ("cls_token",) in paths:
        distilled, two_heads = ("dist_token",) in paths, ("head_dist", "kernel") in paths
        return {path: _transformer_names(path, layout, distilled, two_heads) for path in paths}
    if layout == "transformers":
        raise ValueError(
            f"The layout of transformers is for vision transformers, {model_name} is a convnet; "
            "choose timm."
        )
    layout = "timm" if layout == "official" else layout
    return {path: ((name,),) for path, name in convnet_names(model_name, paths, layout).items()}


def _transformer_names(
    path: TreePath, layout: str, distilled: bool, two_heads: bool
) -> tuple[Names, ...]:
    block = path[1] if path[0] == "blocks" else ""
    leaf = path[-1] if path[-1] in _SUFFIX else ""
    module = ".".join(path[:-1] if path[-1] in _SUFFIX else path)
    generic = re.sub(r"^blocks\.\d+\.", "blocks.{i}.", module)
    row = next(row for row in _TABLE if row.ours == generic)
    if layout != "transformers":
        timm = module + _SUFFIX[leaf]
        official = row.reference.format(i=block) or timm
        return ((official,), (timm,)) if layout == "official" else ((timm,), (official,))
    words = {
        "i": block,
        "root": "deit" if distilled else "vit",
        "class_head": "cls_classifier" if two_heads else "classifier",
    }
    return tuple(
        tuple(name.format(**words) + _SUFFIX[leaf] for name in names)
        for names in (row.files, row.memory)
        if names
    )


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Kernels: [in, out] to [out, in], HWIO to OIHW. Everything else keeps its axes."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def _from_torch(array: np.ndarray, leaf: str) -> np.ndarray:
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if leaf == "kernel" and array.ndim == 2 else array
