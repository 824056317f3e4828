"""Parts of other vision transformers, known by their tensors, which DeiT does not have."""

import re
from collections.abc import Iterable
from typing import Any

from deit_jax.models.block import MLP_RATIO
from deit_jax.trees import Tree

# Names in timm; of transformers where it has them.
_PARTS = (
    (r"(^|\.)(reg_token|register_tokens)$", "register tokens (reg_tokens)"),
    (r"\.attn\.[qk]_norm\.", "normalised queries and keys (qk_norm)"),
    (r"\.attn\.norm\.|\.mlp\.norm\.", "normalisations inside of its blocks (scale_attn_norm)"),
    (r"^fc_norm\.", "the mean over its patches in place of the class token (global_pool)"),
    (r"^norm_pre\.", "a normalisation before its blocks (pre_norm)"),
    (r"^attn_pool\.", "attention in place of the class token (global_pool)"),
    (r"rel_pos|relative_position", "relative positions"),
    (r"^patch_embed\.(norm\.|backbone\.)", "another embedding of its patches"),
    (r"\.[qv]_bias$", "no bias on its keys"),
    (r"\.mlp\.(w12|w3|fc1_g|fc1_x|gate)", "a gated MLP"),
)

# Arrays without which nothing can be said of a transformer, and their dimensions.
_CORE = {
    "pos_embed": 3,
    "patch_embed.proj.kernel": 4,
    "blocks.0.attn.qkv.kernel": 2,
    "blocks.0.mlp.fc1.kernel": 2,
}


def foreign_part(names: Iterable[str]) -> str:
    """Return in words the first part that no DeiT has, by the names of tensors, or ""."""
    names = list(names)
    return next(
        (what for pattern, what in _PARTS if any(re.search(pattern, name) for name in names)), ""
    )


def check_parts(params: Tree) -> None:
    """Refuse a transformer whose tensors have our names but whose layers are others.

    Raises:
        ValueError: says in what, or what is missing; the message lacks the file's name.
    """
    for path, dimensions in _CORE.items():
        if (array := _at(params, path)) is None:
            raise ValueError(f"it is no whole vision transformer: {path} is missing.")
        if array.ndim != dimensions:
            raise ValueError(
                f"it is another vision transformer than is computed here: {path} has the shape "
                f"{array.shape}, which has not {dimensions} dimensions."
            )
    patch, block = _at(params, "patch_embed.proj.kernel"), params["blocks"]["0"]
    hidden = _at(block, "mlp.fc1.kernel")
    what = ""
    if patch.shape[2] != 3:
        what = f"in_chans={patch.shape[2]} in place of 3"
    elif _at(block, "attn.qkv.bias") is None:
        what = "no bias on queries, keys and values (qkv_bias)"
    elif _at(block, "attn.proj.bias") is None:
        what = "no bias on the projections (proj_bias)"
    elif hidden.shape[1] != MLP_RATIO * hidden.shape[0]:
        what = (
            f"{hidden.shape[1]} features inside its MLP at a width of {hidden.shape[0]} "
            f"(mlp_ratio), not {MLP_RATIO} times as many"
        )
    if what:
        raise ValueError(f"it is a vision transformer with {what}, which is not computed here.")


def _at(tree: Tree, path: str) -> Any:
    node: Any = tree
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node
