"""EfficientNet, a convnet that DeiT compares itself with (arXiv 1905.11946; DeiT, table 5).

Two numerics of the same architectures, by timm's names: `efficientnet_*` pads like PyTorch;
`tf_efficientnet_*` pads and normalises like the TensorFlow networks that were published first.
EfficientNet-Lite, for small devices, has no squeeze-and-excitation, ReLU6 in place of SiLU, and the
ends of B0 at every scale (tensorflow/tpu, models/official/efficientnet/lite).
"""

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.architecture import EPSILON, ConvNetArchitecture, Stage
from deit_jax.models.convnet import ConvNet
from deit_jax.models.convnet_layers import ACTIVATION_FUNCTIONS, Layers, drop_branch
from deit_jax.models.spec import ModelSpec
from deit_jax.trees import TreePath

_SQUEEZE_RATIO = 0.25
"""Hidden channels of squeeze-and-excitation, over the channels that enter the block."""

TF_EPSILON = 1e-3
"""What TensorFlow's EfficientNet adds to the variance of BatchNorm."""


# B0: arXiv 1905.11946, table 1.
_STAGES = (
    Stage(16, 1, 1, size=3, expansion=1),
    Stage(24, 2, 2, size=3, expansion=6),
    Stage(40, 2, 2, size=5, expansion=6),
    Stage(80, 3, 2, size=3, expansion=6),
    Stage(112, 3, 1, size=5, expansion=6),
    Stage(192, 4, 2, size=5, expansion=6),
    Stage(320, 1, 1, size=3, expansion=6),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


class InvertedResidual(nnx.Module):
    """Inverted residual: 1x1 expansion (none in the first stage), depthwise, gate, 1x1 projection.

    The projection is called `conv_pwl` after an expansion and `conv_pw` without, as in timm.
    """

    def __init__(
        self,
        channels_in: int,
        stage: Stage,
        layers: Layers,
        *,
        stride: int,
        drop_path_rate: float,
    ) -> None:
        width = stage.expansion * channels_in
        self.expands = stage.expansion > 1
        projection = layers.conv(width, stage.channels, 1)
        if self.expands:
            self.conv_pw = layers.conv(channels_in, width, 1)
            self.conv_pwl = projection
        else:
            self.conv_pw = projection
        self.conv_dw = layers.conv(width, width, stage.size, stride=stride, groups=width)
        hidden = round(_SQUEEZE_RATIO * channels_in)
        squeezes = layers.architecture.squeeze_excite
        self.se = layers.squeeze_excite(width, hidden) if squeezes else None
        self.activation = ACTIVATION_FUNCTIONS[layers.architecture.activation]
        self.has_shortcut = stride == 1 and channels_in == stage.channels
        self.drop_path_rate = drop_path_rate
        self.dtype = jnp.dtype(layers.dtype)

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
            branch = self.activation(self.conv_pw(x, train=train)).astype(self.dtype)
            projection = self.conv_pwl
        branch = self.activation(self.conv_dw(branch, train=train)).astype(self.dtype)
        branch = projection(branch if self.se is None else self.se(branch), train=train)
        if self.has_shortcut:
            branch = x + drop_branch(branch, self.drop_path_rate, keys)
        return branch.astype(self.dtype)


class EfficientNet(ConvNet):
    """EfficientNet classifier; arguments as of `ConvNet`."""

    FAMILY = "efficientnet"
    STEM = ("conv_stem", "conv")
    HEADS = (("classifier",),)
    SPATIAL = "conv_dw"
    BLOCK = InvertedResidual

    @staticmethod
    def block_path(stage: int, number: int) -> TreePath:
        """Return the path of a block, both counted from 0."""
        return "blocks", str(stage), str(number)

    @staticmethod
    def spatial_kernel(stage: Stage, channels_in: int) -> tuple[int, int, int, int]:
        """Return the shape (OIHW) of the depthwise kernel."""
        return stage.expansion * channels_in, 1, stage.size, stage.size

    def _drop_path_steps(self, blocks: int) -> int:
        return blocks

    def _add_tail(self, parts: dict[TreePath, Any], layers: Layers) -> None:
        sizes = layers.architecture
        parts["conv_head",] = layers.conv(sizes.stages[-1].channels, sizes.features, 1)

    def _tail(self, x: Array, train: bool) -> Float[Array, "batch height_out width_out channels"]:
        return self._activate(self._at(("conv_head",))(x, train=train))


def efficientnet_architecture(
    width: float, depth: float, *, tf: bool = False, lite: bool = False
) -> ConvNetArchitecture:
    """Return B0, scaled.

    Args:
        width: factor of all channels, rounded to multiples of 8.
        depth: factor of the blocks of each stage, rounded up.
        tf: TensorFlow's padding and epsilon.
        lite: EfficientNet-Lite: stem, features, and blocks of the first and last stage do not grow.
    """
    ends = (_STAGES[0], _STAGES[-1]) if lite else ()
    stages = tuple(
        replace(
            stage,
            channels=_scaled(stage.channels, width),
            depth=stage.depth if stage in ends else math.ceil(stage.depth * depth),
        )
        for stage in _STAGES
    )
    stem, features = (n if lite else _scaled(n, width) for n in (_STEM_CHANNELS, _HEAD_CHANNELS))
    return ConvNetArchitecture(
        (stem, 3, 2),
        stages,
        features,
        activation="relu6" if lite else "silu",
        squeeze_excite=not lite,
        same_padding=tf,
        epsilon=TF_EPSILON if tf else EPSILON,
    )


def _scaled(count: int, factor: float) -> int:
    """Scaled channels: the nearest multiple of 8, but never less than nine tenths."""
    scaled = count * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _specs(
    variant: str,
    width: float,
    depth: float,
    size: int,
    parameters: int,
    top1: float,
    *,
    torchvision: bool = True,
    elsewhere: tuple[str, ...] = (),
    blurred: tuple[str, ...] = (),
) -> tuple[ModelSpec, ModelSpec]:
    """Return both numerics of one architecture, which have the same tensors."""
    plain, tf = f"efficientnet_{variant}", f"tf_efficientnet_{variant}"
    sizes: dict[str, Any] = {"image_size": (size, size), "parameters": parameters, "top1": top1}
    return (
        ModelSpec(
            plain,
            EfficientNet,
            efficientnet_architecture(width, depth),
            **sizes,
            in_torchvision=torchvision,
            elsewhere=elsewhere,
            same_tensors=tuple(sorted((tf, *blurred))),
        ),
        ModelSpec(
            tf,
            EfficientNet,
            efficientnet_architecture(width, depth, tf=True),
            **sizes,
            in_torchvision=False,
            # timm's older names: adversarial propagation, noisy student, AutoAugment.
            elsewhere=tuple(f"{tf}_{training}" for training in ("ap", "ns", "aa")),
            same_tensors=tuple(sorted((plain, *blurred))),
        ),
    )


def _lite(
    number: int, width: float, depth: float, size: int, parameters: int, top1: float
) -> ModelSpec:
    return ModelSpec(
        f"tf_efficientnet_lite{number}",
        EfficientNet,
        efficientnet_architecture(width, depth, tf=True, lite=True),
        image_size=(size, size),
        parameters=parameters,
        top1=top1,
        in_torchvision=False,
        same_tensors=(f"efficientnet_lite{number}",),
    )


# Image sizes and accuracies: DeiT, table 5; other weights of the same networks reach others.
# Of EfficientNet-Lite: the README of tensorflow/tpu, models/official/efficientnet/lite.
MODELS = (
    *_specs("b0", 1.0, 1.0, 224, 5_288_548, 77.1, blurred=("efficientnet_blur_b0",)),
    *_specs("b3", 1.2, 1.4, 300, 12_233_232, 81.6, elsewhere=("efficientnet_b3a",)),
    *_specs("b4", 1.4, 1.8, 380, 19_341_616, 82.9),
    # torchvision's B7 adds 1e-3 to the variance of BatchNorm.
    *_specs("b7", 2.0, 3.1, 600, 66_347_960, 84.3, torchvision=False),
    _lite(0, 1.0, 1.0, 224, 4_652_008, 75.1),
    _lite(1, 1.0, 1.1, 240, 5_416_680, 76.7),
    _lite(2, 1.1, 1.2, 260, 6_092_072, 77.6),
)
