"""EfficientNet, a convnet that DeiT compares itself with (arXiv 1905.11946; DeiT, table 5).

Two numerics of the same architectures, by timm's names: `efficientnet_*` pads like PyTorch;
`tf_efficientnet_*` pads and normalises like the TensorFlow networks that were published first.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.batch_norm import EPSILON, ConvNorm
from deit_jax.models.convnet import (
    ConvNet,
    KernelShapes,
    LinearHead,
    SqueezeExcite,
    drop_branch,
)

_SQUEEZE_RATIO = 0.25
"""Hidden channels of squeeze-and-excitation, over the channels that enter the block."""

TF_EPSILON = 1e-3
"""What TensorFlow's EfficientNet adds to the variance of BatchNorm."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind: kernel size, stride of the first, expansion, channels, number of blocks.

    Channels and number are those of B0, before scaling.
    """

    size: int
    stride: int
    expansion: int
    channels: int
    depth: int


# arXiv 1905.11946, table 1.
STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class EfficientNetArchitecture:
    """Compound scaling of B0.

    Attributes:
        width: factor of all channels, rounded to multiples of 8.
        depth: factor of the blocks of each stage, rounded up.
        tf: TensorFlow's padding and epsilon.
    """

    width: float
    depth: float
    tf: bool = False

    def channels(self, count: int) -> int:
        """Scaled channels: the nearest multiple of 8, but never less than nine tenths."""
        scaled = count * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def blocks(self, stage: Stage) -> int:
        """Scaled number of blocks of a stage."""
        return math.ceil(stage.depth * self.depth)

    def spatial_kernels(self) -> KernelShapes:
        """Return the shapes of the kernels larger than 1x1."""
        channels = self.channels(_STEM_CHANNELS)
        kernels: KernelShapes = {("conv_stem", "conv"): (channels, 3, 3, 3)}
        for number, stage in enumerate(STAGES):
            for block in range(self.blocks(stage)):
                path = ("blocks", str(number), str(block), "conv_dw", "conv")
                kernels[path] = (stage.expansion * channels, 1, stage.size, stage.size)
                channels = self.channels(stage.channels)
        return kernels


class InvertedResidual(nnx.Module):
    """Inverted residual: 1x1 expansion (none in the first stage), depthwise, gate, 1x1 projection.

    The projection is called `conv_pwl` after an expansion and `conv_pw` without, as in timm.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stage: Stage,
        *,
        stride: int,
        drop_path_rate: float,
        conv: functools.partial[ConvNorm],
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        width = stage.expansion * channels_in
        self.expands = stage.expansion > 1
        projection = conv(width, channels_out, 1)
        if self.expands:
            self.conv_pw = conv(channels_in, width, 1)
            self.conv_pwl = projection
        else:
            self.conv_pw = projection
        self.conv_dw = conv(width, width, stage.size, stride=stride, groups=width)
        self.se = SqueezeExcite(
            width,
            round(_SQUEEZE_RATIO * channels_in),
            activation=jax.nn.silu,
            dtype=dtype,
            rngs=rngs,
        )
        self.has_shortcut = stride == 1 and channels_in == channels_out
        self.drop_path_rate = drop_path_rate
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self,
        x: Float[Array, "batch height width channels_in"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Run the block; `keys` decide for each image whether its residual branch is dropped."""
        branch, projection = x, self.conv_pw
        if self.expands:
            branch = jax.nn.silu(self.conv_pw(x, train=train)).astype(self.dtype)
            projection = self.conv_pwl
        branch = jax.nn.silu(self.conv_dw(branch, train=train)).astype(self.dtype)
        branch = projection(self.se(branch), train=train)
        if self.has_shortcut:
            branch = x + drop_branch(branch, self.drop_path_rate, keys)
        return branch.astype(self.dtype)


class EfficientNet(ConvNet):
    """EfficientNet classifier.

    Args:
        architecture: scaling and numerics.
        num_classes: classes of the head.
        image_size: (height, width) in pixels it is meant for; any other size also runs.
        drop_rate: dropout before the head.
        drop_path_rate: of stochastic depth; block i of n has probability `drop_path_rate` i / n,
            counted from 0, as in timm.
        dtype: type of the operands of convolutions and products, and of the activations between
            them. BatchNorm is computed in float32.
        rngs: for the initialisation.

    Raises:
        ValueError: a probability is not in [0, 1).
    """

    def __init__(
        self,
        architecture: EfficientNetArchitecture,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            tuple(architecture.blocks(stage) for stage in STAGES),
            num_classes=num_classes,
            image_size=image_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            dtype=dtype,
        )
        conv = functools.partial(
            ConvNorm,
            same_padding=architecture.tf,
            epsilon=TF_EPSILON if architecture.tf else EPSILON,
            dtype=dtype,
            rngs=rngs,
        )
        channels, number = architecture.channels(_STEM_CHANNELS), 0
        self.conv_stem = conv(3, channels, 3, stride=2)
        stages = {}
        for position, (stage, depth) in enumerate(zip(STAGES, self.depths, strict=True)):
            blocks = {}
            for index in range(depth):
                blocks[str(index)] = InvertedResidual(
                    channels,
                    architecture.channels(stage.channels),
                    stage,
                    stride=stage.stride if index == 0 else 1,
                    drop_path_rate=drop_path_rate * number / sum(self.depths),
                    conv=conv,
                    dtype=dtype,
                    rngs=rngs,
                )
                channels, number = architecture.channels(stage.channels), number + 1
            stages[str(position)] = nnx.Dict(blocks)
        self.blocks = nnx.Dict(stages)
        features = architecture.channels(_HEAD_CHANNELS)
        self.conv_head = conv(channels, features, 1)
        self.classifier = LinearHead(features, num_classes, dtype=dtype, rngs=rngs)

    def _head(self) -> LinearHead:
        """Return the linear head."""
        return self.classifier

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        return jax.nn.silu(self.conv_stem(images, train=train)).astype(self.dtype)

    def _blocks(self) -> dict[str, Callable[..., Array]]:
        return {
            f"blocks.{stage}.{number}": self.blocks[str(stage)][str(number)]
            for stage, depth in enumerate(self.depths)
            for number in range(depth)
        }

    def _tail(self, x: Array, train: bool) -> Float[Array, "batch height_out width_out channels"]:
        return jax.nn.silu(self.conv_head(x, train=train))


def _entries(
    variant: str, width: float, depth: float, size: int, parameters: int, top1: float
) -> dict[str, dict[str, Any]]:
    return {
        f"{prefix}efficientnet_{variant}": {
            "build": functools.partial(
                EfficientNet, EfficientNetArchitecture(width, depth, tf=bool(prefix))
            ),
            "image_size": (size, size),
            "parameters": parameters,
            "num_classes": 1000,
            "top1": top1,
        }
        for prefix in ("", "tf_")
    }


# Image sizes and accuracies: DeiT, table 5; other weights of the same networks reach others.
MODELS: dict[str, dict[str, Any]] = {
    **_entries("b0", 1.0, 1.0, 224, 5_288_548, 77.1),
    **_entries("b3", 1.2, 1.4, 300, 12_233_232, 81.6),
    **_entries("b4", 1.4, 1.8, 380, 19_341_616, 82.9),
    **_entries("b7", 2.0, 3.1, 600, 66_347_960, 84.3),
}
