"""RegNetY in timm, where the names are ours, and in torchvision."""

from deit_jax.trees import TreePath
from deit_jax.weights.convnets.layout import PAIR, Layout, same

_PARTS = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "downsample": "proj"}


def _torchvision(module: TreePath, depths: tuple[int, ...]) -> str:
    del depths
    if module[0] == "head":
        return "fc"
    if module[0] == "stem":
        return f"stem.{PAIR[module[1]]}"
    stage, block, part, layer = module
    where = f"trunk_output.block{stage[1:]}.block{stage[1:]}-{int(block[1:]) - 1}"
    if part == "se":
        return f"{where}.f.se.{layer}"
    return f"{where}.{_PARTS[part]}.{PAIR[layer]}"


LAYOUTS = {
    "timm": Layout("s1.b1.conv2.conv.weight", same),
    "torchvision": Layout("trunk_output.block1.block1-0.f.b.0.weight", _torchvision),
}
