"""By which tensor a convnet is known; without JAX, as files are read without it."""

MARKERS = {
    "s1.b1.conv2.conv.weight": ("regnet", "timm"),
    "trunk_output.block1.block1-0.f.b.0.weight": ("regnet", "torchvision"),
    "layer1.0.conv2.weight": ("resnet", "timm"),
    "blocks.0.0.conv_dw.weight": ("efficientnet", "timm"),
    "features.1.0.block.0.0.weight": ("efficientnet", "torchvision"),
}
"""Family and layout by a tensor that every such model has, and no other."""
