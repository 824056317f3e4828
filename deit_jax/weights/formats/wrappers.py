"""What training programs wrap weights in: the dict of a checkpoint, and prefixes of all names.

Nothing here touches a tensor, so the comparison with PyTorch uses it as well.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deit_jax.messages import quoted
from deit_jax.weights.convnets.families import MARKERS

# Under these keys training programs keep weights: the reference, timm and torchvision; Lightning;
# many a script.
_WRAPPERS = {
    "model": ("model", "state_dict", "model_state_dict", "net"),
    "ema": ("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema"),
}
WHICH = tuple(_WRAPPERS)

# A tensor that each network has; what stands before it is not the network's. The names of
# transformers contain each other: the longest comes first.
_ROOTED = ("vit.embeddings.cls_token", "deit.embeddings.cls_token")
_MARKERS = (*_ROOTED, "embeddings.cls_token", "cls_token", *MARKERS)
_AVERAGE = re.compile(r"(^|[._])ema([._]|$)")


def state_dict(
    path: Path, content: Any, which: str, is_tensor: Callable[[Any], bool]
) -> dict[str, Any]:
    """Find the tensors by name in what a `.pth` file holds.

    Args:
        path: of the file, for messages.
        content: of the file.
        which: "model" or "ema".
        is_tensor: whether a value is a tensor.

    Raises:
        ValueError: there are none.
    """
    if not isinstance(content, dict):
        kind = "tensor" if is_tensor(content) else type(content).__name__
        raise ValueError(f"{path} holds one object, a {kind}, instead of named tensors.")
    bare = bool(content) and all(is_tensor(value) for value in content.values())
    keys = [key for key in _WRAPPERS[which] if isinstance(content.get(key), dict)]
    found: Any = content[keys[0]] if keys else None
    if bare and which == "model":
        found = content
    if not isinstance(found, dict):
        there = "only tensors" if bare else ", ".join(map(quoted, list(content)[:12])) or "nothing"
        raise ValueError(
            f"{path} has no {' or '.join(map(repr, _WRAPPERS[which]))} to take the {which} weights "
            f"from; it holds {there}."
        )
    for name, value in found.items():
        if not (isinstance(name, str) and is_tensor(value)):
            raise ValueError(f"{path} holds weights of which {quoted(name)} is no named tensor.")
    return found


def network_prefix(path: Path, names: Iterable[str]) -> str:
    """Return what stands before the names of the one network among tensors, "" where nothing does.

    DistributedDataParallel puts `module.` there, `torch.compile` `_orig_mod.`, Lightning the name
    of an attribute, each around the other. A moving average beside a network is passed over.

    Raises:
        ValueError: there are several networks.
    """
    found = {_before(name) for name in names} - {None}
    prefixes = {prefix for prefix in found if not _AVERAGE.search(prefix or "")} or found
    if len(prefixes) > 1:
        listed = ", ".join(quoted(prefix) for prefix in sorted(map(str, prefixes)))
        raise ValueError(
            f"{path} holds several networks, under {listed}; save the state_dict() of one alone."
        )
    return next(iter(prefixes), "") or ""


def _before(name: str) -> str | None:
    """Return what stands before the marker of a network, or None if the name is of none."""
    marker = next((m for m in _MARKERS if name == m or name.endswith(f".{m}")), None)
    return None if marker is None else name.removesuffix(marker)


def with_root(names: Iterable[str]) -> dict[str, str]:
    """Return names of transformers' backbones by what they are in its classifiers.

    `ViTModel` and `DeiTModel` have no `vit.` or `deit.` before their names; other names stay.
    """
    names = list(names)
    if "embeddings.cls_token" not in names:
        return {name: name for name in names}
    root = "deit" if "embeddings.distillation_token" in names else "vit"
    return {f"{root}.{name}": name for name in names}
