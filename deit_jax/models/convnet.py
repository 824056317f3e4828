"""The frame that the convnets share: stem, stages of blocks, mean over space, a linear head."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.devices import platform
from deit_jax.models.architecture import ConvNetArchitecture, Stage
from deit_jax.models.convnet_layers import ACTIVATION_FUNCTIONS, Layers, LinearHead
from deit_jax.models.functional import HeadLogits
from deit_jax.models.layers import check_images, dropout, fold_keys
from deit_jax.trees import TreePath, nest

KernelShapes = dict[TreePath, tuple[int, int, int, int]]
"""Shapes (OIHW) of kernels, by the path of their convolution in the parameters."""


class ConvNet(nnx.Module):
    """A convnet classifier: stem, stages of blocks, mean over space, dropout, a linear head.

    A family says what its blocks are, and where in the parameters its parts lie.

    Args:
        architecture: shape and numerics.
        num_classes: classes of the head.
        image_size: (height, width) in pixels it is meant for; any other size also runs.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth probability of the last block; rises linearly from 0 over
            all blocks. Of EfficientNet block i of n has `drop_path_rate` i / n, as in timm.
        dtype: type of the operands of convolutions and products, and of the activations between
            them. BatchNorm is computed in float32.
        rngs: for the initialisation.

    Raises:
        ValueError: a probability is not in [0, 1).
    """

    FAMILY: ClassVar[str]
    STEM: ClassVar[TreePath]
    """Of the first convolution."""
    HEADS: ClassVar[tuple[TreePath, ...]]
    SPATIAL: ClassVar[str]
    """What a block calls its convolution that is larger than 1x1."""
    BLOCK: ClassVar[type]

    @staticmethod
    def block_path(stage: int, number: int) -> TreePath:
        """Return the path of a block, both counted from 0."""
        raise NotImplementedError

    @staticmethod
    def spatial_kernel(stage: Stage, channels_in: int) -> tuple[int, int, int, int]:
        """Return the shape (OIHW) of the one kernel of a block that is larger than 1x1."""
        raise NotImplementedError

    @classmethod
    def spatial_kernels(cls, architecture: ConvNetArchitecture) -> KernelShapes:
        """Return the shapes of all kernels larger than 1x1, by which a convnet is recognised."""
        channels, size, _ = architecture.stem
        kernels: KernelShapes = {cls.STEM: (channels, 3, size, size)}
        for position, stage in enumerate(architecture.stages):
            for number in range(stage.depth):
                path = (*cls.block_path(position, number), cls.SPATIAL, "conv")
                kernels[path] = cls.spatial_kernel(stage, channels)
                channels = stage.channels
        return kernels

    def __init__(
        self,
        architecture: ConvNetArchitecture,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        for option, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{option} is {rate}; choose a probability in [0, 1).")
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = image_size
        self.has_distillation_head = False
        self.drop_rate = drop_rate
        self.dtype = jnp.dtype(dtype)
        layers = Layers(architecture, dtype, rngs)
        channels, size, stride = architecture.stem
        parts: dict[TreePath, Any] = {self.STEM[:-1]: layers.conv(3, channels, size, stride=stride)}
        steps = self._drop_path_steps(sum(stage.depth for stage in architecture.stages))
        for position, stage in enumerate(architecture.stages):
            for number in range(stage.depth):
                parts[self.block_path(position, number)] = self.BLOCK(
                    channels,
                    stage,
                    layers,
                    stride=stage.stride if number == 0 else 1,
                    drop_path_rate=drop_path_rate * (len(parts) - 1) / steps,
                )
                channels = stage.channels
        self._add_tail(parts, layers)
        head = LinearHead(architecture.features, num_classes, dtype=dtype, rngs=rngs)
        parts[self.HEADS[0]] = head
        for name, part in _as_modules(nest(parts)).items():
            setattr(self, name, part)

    def _drop_path_steps(self, blocks: int) -> int:
        """Number of the block, counted from 0, that would have the whole `drop_path_rate`."""
        return max(blocks - 1, 1)

    def _add_tail(self, parts: dict[TreePath, Any], layers: Layers) -> None:
        """Add what lies between the last block and the mean."""

    def _at(self, path: TreePath) -> Any:
        """Return the module at a path."""
        return functools.reduce(lambda part, key: part[key], path[1:], getattr(self, path[0]))

    def _activate(self, x: Array) -> Array:
        return ACTIVATION_FUNCTIONS[self.architecture.activation](x)

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        """Return what enters the first block."""
        check_images(images)
        return self._activate(self._at(self.STEM[:-1])(images, train=train)).astype(self.dtype)

    def _blocks(self) -> dict[str, Callable[..., Array]]:
        """All blocks by name, in order. (Iterating over a stage would put 10 before 2.)"""
        stages = enumerate(self.architecture.stages)
        paths = [self.block_path(i, number) for i, stage in stages for number in range(stage.depth)]
        return {".".join(path): self._at(path) for path in paths}

    def _tail(self, x: Array, train: bool) -> Float[Array, "batch height_out width_out channels"]:
        """Return what lies between the last block and the mean over space."""
        del train
        return x

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """Return inference logits."""
        return self.head_logits(images)[0]

    def head_logits(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> HeadLogits:
        """Return the class logits, and None for the distillation head there is not.

        Args:
            images: normalised.
            keys: one per image, for dropout and stochastic depth; without it neither acts.
            train: BatchNorm uses and updates the statistics of the batch.
        """
        x = self._stem(images, train)
        blocks = self._blocks()
        for number, block in enumerate(blocks.values()):
            x = block(x, keys=fold_keys(keys, number), train=train)
            if not train and platform() != "cpu":
                # Else XLA adds shortcut and branch where the next block reads them, not as part of
                # the branch's last product.
                x = jax.lax.optimization_barrier(x)
        features = self._tail(x, train).mean((1, 2), dtype=jnp.float32)
        features = dropout(features, self.drop_rate, fold_keys(keys, len(blocks)))
        return self._at(self.HEADS[0])(features), None

    def activations(
        self, images: Float[Array, "batch height width 3"]
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Return the results of inference in order: `stem`, each block, `tail`, `head`.

        Blocks have timm's names; maps are [batch, height, width, channels].
        """
        seen = {"stem": self._stem(images, False)}
        x = seen["stem"]
        for name, block in self._blocks().items():
            x = seen[name] = block(x, keys=None, train=False)
        x = self._tail(x, False)
        # Where there is nothing between, the last block says it all.
        if x is not seen[name]:
            seen["tail"] = x
        return seen | {"head": self._at(self.HEADS[0])(x.mean((1, 2), dtype=jnp.float32))}


def _as_modules(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: nnx.Dict(_as_modules(part)) if isinstance(part, dict) else part
        for key, part in tree.items()
    }
