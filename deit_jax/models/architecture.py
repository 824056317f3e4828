"""Sizes of the networks: what a vision transformer and what every family of convnets states."""

from dataclasses import dataclass

from deit_jax.trees import Tree

EPSILON = 1e-5
"""What PyTorch's BatchNorm adds to the variance."""


@dataclass(frozen=True)
class VitArchitecture:
    """Sizes of a vision transformer.

    Attributes:
        patch_size: side of a patch in pixels.
        width: embedding dimension.
        depth: number of blocks.
        num_heads: attention heads; divides `width`. 0 where nothing says it.
        distilled: whether there is a distillation token with a head of its own.
        deit3: the network of DeiT III: LayerScale on every branch, position embeddings for the
            patches only, stochastic depth alike in all blocks.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    distilled: bool = False
    deit3: bool = False

    @classmethod
    def of(cls, params: Tree, num_heads: int = 0) -> "VitArchitecture":
        """Return the sizes that parameters show; the number of heads is not among them."""
        patch_size, _, _, width = params["patch_embed"]["proj"]["kernel"].shape
        blocks = params["blocks"]
        return cls(
            patch_size, width, len(blocks), num_heads, "dist_token" in params, "ls1" in blocks["0"]
        )

    @property
    def prefix_tokens(self) -> int:
        """Class token, and distillation token if there is one."""
        return 2 if self.distilled else 1

    @property
    def prefix_positions(self) -> int:
        """How many position embeddings are for prefix tokens: none in DeiT III."""
        return 0 if self.deit3 else self.prefix_tokens


def is_transformer(params: Tree) -> bool:
    """Whether parameters in our names are a vision transformer's."""
    return "cls_token" in params


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind.

    Attributes:
        channels: that leave each block.
        depth: number of blocks.
        stride: of the first block; the others have 1.
        size: of the kernels that are larger than 1x1.
        group_width: of RegNet: channels in each group of these kernels.
        expansion: of EfficientNet: their channels over those that enter the block.
    """

    channels: int
    depth: int
    stride: int
    size: int = 3
    group_width: int = 0
    expansion: int = 1


@dataclass(frozen=True)
class ConvNetArchitecture:
    """Shape and numerics of a convnet.

    Attributes:
        stem: channels, kernel size and stride of the first convolution.
        stages: all in order.
        features: channels that enter the head.
        activation: its name: relu, relu6 or silu.
        squeeze_excite: whether blocks have a squeeze-and-excitation, called `se`.
        same_padding: whether convolutions pad as TensorFlow's 'SAME' and not as PyTorch.
        epsilon: what BatchNorm adds to the variance.
    """

    stem: tuple[int, int, int]
    stages: tuple[Stage, ...]
    features: int
    activation: str = "relu"
    squeeze_excite: bool = False
    same_padding: bool = False
    epsilon: float = EPSILON
