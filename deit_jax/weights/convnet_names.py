"""What timm and torchvision call the tensors of the convnets, and which convnet a file holds.

A convolution and its BatchNorm are one node here (`conv`, `bn`); foreign models have them side by
side. Of the tensors, kernels are HWIO here and OIHW there, linear kernels (in, out) and (out, in).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deit_jax.models import efficientnet, regnet, resnet
from deit_jax.trees import TreePath
from deit_jax.weights.markers import MARKERS

CONVNET_LAYOUTS = ("timm", "torchvision")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_FAMILIES = {"regnet": regnet.MODELS, "resnet": resnet.MODELS, "efficientnet": efficientnet.MODELS}
# torchvision numbers the two layers of a pair.
_PAIR = {"conv": "0", "bn": "1"}


def convnet_names(model_name: str, paths: Sequence[TreePath], layout: str) -> dict[TreePath, str]:
    """Return the foreign name of each leaf of a convnet's parameters and BatchNorm statistics.

    Args:
        model_name: a registered RegNetY, ResNet or EfficientNet.
        paths: of our leaves, such as `("s1", "b1", "conv1", "conv", "kernel")`.
        layout: "timm" or "torchvision"; ResNets are called the same in both.

    Raises:
        ValueError: the model is no convnet, or the layout has no such model.
    """
    family = convnet_family(model_name)
    if family is None:
        raise ValueError(f"{model_name} is no convnet, so it has no names of timm's convnets.")
    if layout not in CONVNET_LAYOUTS:
        raise ValueError(
            f"Convnets have no layout {layout!r}; choose from {', '.join(CONVNET_LAYOUTS)}."
        )
    _require_equal_arithmetic(model_name, layout)
    rename = _RENAME[family, layout]
    return {path: f"{rename(path[:-1])}.{_LEAVES[path[-1]]}" for path in paths}


def convnet_family(model_name: str) -> str | None:
    """Return "regnet", "resnet" or "efficientnet", or None for other models."""
    return next((family for family, models in _FAMILIES.items() if model_name in models), None)


def convnet_layout(names: Mapping[str, Any] | Sequence[str]) -> str | None:
    """Return the layout that a convnet's tensor names have, or None if they are of no convnet.

    A ResNet's are "timm", which are torchvision's as well.
    """
    return next((layout for name, (_, layout) in MARKERS.items() if name in names), None)


def guess_convnet(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the registered name of the convnet that has tensors of these names and shapes.

    Decided by the kernels larger than 1x1, which every block has one of. timm's `tf_efficientnet`
    models have the shapes of the others; the plain name is returned.

    Args:
        shapes: of a state dict's tensors, by foreign name.
    """
    found = [where for name, where in MARKERS.items() if name in shapes]
    if not found:
        return None
    family, layout = found[0]
    spatial = {name for name, shape in shapes.items() if len(shape) == 4 and shape[-1] > 1}
    for model_name, entry in _FAMILIES[family].items():
        # The constructor's first argument is its Architecture.
        kernels = entry["build"].args[0].spatial_kernels()
        rename = _RENAME[family, layout]
        wanted = {f"{rename(path)}.weight": shape for path, shape in kernels.items()}
        if wanted.keys() == spatial and all(shapes[n] == shape for n, shape in wanted.items()):
            return model_name
    return None


def _require_equal_arithmetic(model_name: str, layout: str) -> None:
    """Refuse names under which another network would be read: same shapes, other results."""
    if layout != "torchvision" or convnet_family(model_name) != "efficientnet":
        return
    if model_name.startswith("tf_") or model_name == "efficientnet_b7":
        raise ValueError(
            f"torchvision has no {model_name}: its EfficientNets pad symmetrically, and its B7 "
            "adds 1e-3 to the variance of BatchNorm; use timm's weights."
        )


def _same(module: TreePath) -> str:
    return ".".join(module)


def _regnet_torchvision(module: TreePath) -> str:
    if module[0] == "head":
        return "fc"
    if module[0] == "stem":
        return f"stem.{_PAIR[module[1]]}"
    stage, block, part, layer = module
    where = f"trunk_output.block{stage[1:]}.block{stage[1:]}-{int(block[1:]) - 1}"
    if part == "se":
        return f"{where}.f.se.{layer}"
    parts = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "downsample": "proj"}
    return f"{where}.{parts[part]}.{_PAIR[layer]}"


def _resnet(module: TreePath) -> str:
    if module[0] == "fc":
        return "fc"
    *where, part, layer = module
    if part == "downsample":
        return ".".join((*where, part, _PAIR[layer]))
    return ".".join((*where, part if layer == "conv" else part.replace("conv", "bn")))


def _efficientnet_order(module: TreePath) -> tuple[str, ...]:
    """Names of the convolutions beside this one, in the order in which they are applied."""
    if module[0] != "blocks":
        return "conv_stem", "conv_head"
    # The first stage's blocks do not expand.
    return ("conv_dw", "conv_pw") if module[1] == "0" else ("conv_pw", "conv_dw", "conv_pwl")


def _efficientnet_timm(module: TreePath) -> str:
    if module[0] == "classifier":
        return "classifier"
    *where, part, layer = module
    if part == "se":
        return ".".join((*where, part, {"fc1": "conv_reduce", "fc2": "conv_expand"}[layer]))
    if layer == "bn":
        part = f"bn{_efficientnet_order(module).index(part) + 1}"
    return ".".join((*where, part))


def _efficientnet_torchvision(module: TreePath) -> str:
    if module[0] == "classifier":
        return "classifier.1"
    if module[0] != "blocks":
        return f"features.{'0' if module[0] == 'conv_stem' else '8'}.{_PAIR[module[1]]}"
    _, stage, block, part, layer = module
    order = list(_efficientnet_order(module))
    # Squeeze-and-excitation follows the depthwise convolution.
    order.insert(order.index("conv_dw") + 1, "se")
    where = f"features.{int(stage) + 1}.{block}.block.{order.index(part)}"
    return f"{where}.{layer if part == 'se' else _PAIR[layer]}"


_RENAME = {
    ("regnet", "timm"): _same,
    ("regnet", "torchvision"): _regnet_torchvision,
    ("resnet", "timm"): _resnet,
    ("resnet", "torchvision"): _resnet,
    ("efficientnet", "timm"): _efficientnet_timm,
    ("efficientnet", "torchvision"): _efficientnet_torchvision,
}
