"""ResNet in timm, which torchvision calls the same."""

from deit_jax.trees import TreePath
from deit_jax.weights.convnets.layout import PAIR, Layout


def _timm(module: TreePath, depths: tuple[int, ...]) -> str:
    del depths
    if module[0] == "fc":
        return "fc"
    *where, part, layer = module
    if part == "downsample":
        return ".".join((*where, part, PAIR[layer]))
    return ".".join((*where, part if layer == "conv" else part.replace("conv", "bn")))


LAYOUTS = {name: Layout("layer1.0.conv2.weight", _timm) for name in ("timm", "torchvision")}
