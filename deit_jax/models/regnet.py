"""RegNetY, the convnet that teaches (arXiv 2003.13678, table 3 and section 5.3; DeiT, table 2)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.batch_norm import ConvNorm
from deit_jax.models.convnet import (
    ConvNet,
    KernelShapes,
    LinearHead,
    SqueezeExcite,
    drop_branch,
)

_SQUEEZE_RATIO = 0.25
"""Hidden channels of squeeze-and-excitation, over the channels that enter the block."""


@dataclass(frozen=True)
class RegNetArchitecture:
    """Shape of a RegNetY.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        group_width: channels in each group of the 3x3 convolutions; divides all widths.
        strides: of the first block of each stage.
        stem_width: channels of the stem.
        stem_stride: of the stem's 3x3 convolution.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    group_width: int
    strides: tuple[int, ...] = (2, 2, 2, 2)
    stem_width: int = 32
    stem_stride: int = 2

    def spatial_kernels(self) -> KernelShapes:
        """Return the shapes of the kernels larger than 1x1."""
        kernels: KernelShapes = {("stem", "conv"): (self.stem_width, 3, 3, 3)}
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), 1):
            for block in range(1, depth + 1):
                path = (f"s{stage}", f"b{block}", "conv2", "conv")
                kernels[path] = (width, self.group_width, 3, 3)
        return kernels


class RegNetBlock(nnx.Module):
    """Residual block with bottleneck ratio 1: 1x1, grouped 3x3, squeeze-and-excitation, 1x1."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        group_width: int,
        *,
        stride: int,
        drop_path_rate: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        conv = functools.partial(ConvNorm, dtype=dtype, rngs=rngs)
        groups = channels_out // group_width
        hidden = round(_SQUEEZE_RATIO * channels_in)
        self.conv1 = conv(channels_in, channels_out, 1)
        self.conv2 = conv(channels_out, channels_out, 3, stride=stride, groups=groups)
        self.se = SqueezeExcite(channels_out, hidden, dtype=dtype, rngs=rngs)
        # With a last scale of zero each block starts as the identity (arXiv 1706.02677, 5.1).
        self.conv3 = conv(channels_out, channels_out, 1, zero_scale=True)
        keeps_shape = stride == 1 and channels_in == channels_out
        self.downsample = None if keeps_shape else conv(channels_in, channels_out, 1, stride=stride)
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
        shortcut = x if self.downsample is None else self.downsample(x, train=train)
        branch = jax.nn.relu(self.conv1(x, train=train)).astype(self.dtype)
        branch = jax.nn.relu(self.conv2(branch, train=train)).astype(self.dtype)
        branch = self.conv3(self.se(branch), train=train)
        branch = drop_branch(branch, self.drop_path_rate, keys)
        return jax.nn.relu(branch + shortcut).astype(self.dtype)


class RegNet(ConvNet):
    """RegNetY classifier.

    Args:
        architecture: widths, depths and strides.
        num_classes: classes of the head.
        image_size: (height, width) in pixels it is meant for; any other size also runs.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth probability of the last block; rises linearly from 0 over
            all blocks.
        dtype: type of the operands of convolutions and products, and of the activations between
            them. BatchNorm is computed in float32.
        rngs: for the initialisation.

    Raises:
        ValueError: a probability is not in [0, 1).
    """

    def __init__(
        self,
        architecture: RegNetArchitecture,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            architecture.depths,
            num_classes=num_classes,
            image_size=image_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            dtype=dtype,
        )
        channels, number = architecture.stem_width, 0
        self.stem = ConvNorm(
            3, channels, 3, stride=architecture.stem_stride, dtype=dtype, rngs=rngs
        )
        stages = zip(architecture.widths, architecture.depths, architecture.strides, strict=True)
        for stage, (width, depth, stride) in enumerate(stages, start=1):
            blocks = {}
            for position in range(depth):
                blocks[f"b{position + 1}"] = RegNetBlock(
                    channels,
                    width,
                    architecture.group_width,
                    stride=stride if position == 0 else 1,
                    drop_path_rate=drop_path_rate * number / max(sum(self.depths) - 1, 1),
                    dtype=dtype,
                    rngs=rngs,
                )
                channels, number = width, number + 1
            setattr(self, f"s{stage}", nnx.Dict(blocks))
        self.head = nnx.Dict(fc=LinearHead(channels, num_classes, dtype=dtype, rngs=rngs))

    def _head(self) -> LinearHead:
        """Return the linear head."""
        head: LinearHead = self.head["fc"]
        return head

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        return jax.nn.relu(self.stem(images, train=train)).astype(self.dtype)

    def _blocks(self) -> dict[str, Callable[..., Array]]:
        return {
            f"s{stage}.b{number}": getattr(self, f"s{stage}")[f"b{number}"]
            for stage, depth in enumerate(self.depths, 1)
            for number in range(1, depth + 1)
        }


def _entry(architecture: RegNetArchitecture, parameters: int, top1: float) -> dict[str, Any]:
    return {
        "build": functools.partial(RegNet, architecture),
        "image_size": (224, 224),
        "parameters": parameters,
        "num_classes": 1000,
        "top1": top1,
    }


# Widths and depths are what equations 2 to 4 of arXiv 2003.13678 give for the published
# (w0, wa, wm, depth), the widths rounded to whole groups as in timm. Accuracies: DeiT, table 2.
MODELS: dict[str, dict[str, Any]] = {
    "regnety_040": _entry(
        RegNetArchitecture((128, 192, 512, 1088), (2, 6, 12, 2), group_width=64), 20_646_656, 80.0
    ),
    "regnety_080": _entry(
        RegNetArchitecture((168, 448, 896, 2016), (2, 4, 10, 1), group_width=56), 39_180_068, 81.7
    ),
    "regnety_120": _entry(
        RegNetArchitecture((224, 448, 896, 2240), (2, 5, 11, 1), group_width=112), 51_822_544, 82.4
    ),
    "regnety_160": _entry(
        RegNetArchitecture((224, 448, 1232, 3024), (2, 4, 11, 1), group_width=112), 83_590_140, 82.9
    ),
    "regnety_320": _entry(
        RegNetArchitecture((232, 696, 1392, 3712), (2, 5, 12, 1), group_width=232), 145_046_770, 0.0
    ),
    # The group width of 56 makes timm (as the table above) and torchvision round the 8GF widths
    # differently; these are torchvision's, under timm's name for them.
    "regnety_080_tv": _entry(
        RegNetArchitecture((224, 448, 896, 2016), (2, 4, 10, 1), group_width=56), 39_381_472, 0.0
    ),
    # No published design: the same blocks for images of 16x16, to try things out within seconds.
    "regnety_micro": {
        "build": functools.partial(
            RegNet,
            RegNetArchitecture(
                (16, 32, 64), (1, 2, 1), group_width=16, strides=(1, 2, 2), stem_width=16
            ),
        ),
        "image_size": (16, 16),
        "parameters": 37_794,
        "num_classes": 10,
        "top1": 0.0,
    },
}
