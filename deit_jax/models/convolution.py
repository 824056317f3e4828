"""Convolution as the convnets use it: odd square kernels, explicit padding, groups."""

import functools
import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deit_jax.devices import platform
from deit_jax.sharding import per_device, whole

GroupForm = Literal["split", "shifts", "native"]
Pads = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    images: Float[Array, "batch height width channels_in"],
    kernel: Float[Array, "size size group_width channels_out"],
    *,
    stride: int = 1,
    groups: int = 1,
    same_padding: bool = False,
    form: GroupForm | None = None,
) -> Float[Array, "batch height_out width_out channels_out"]:
    """Convolve with padding (size - 1) / 2 on every side, as PyTorch does.

    With stride 2 this is not XLA's 'SAME', which pads an even image on one side only and so
    shifts the grid of positions by a pixel.

    Args:
        images: operands; channel c belongs to group c // group_width.
        kernel: HWIO, of the type of `images`; output channels are group-major.
        stride: of both axes.
        groups: number of groups; channels_in is groups * group_width.
        same_padding: pad as TensorFlow's 'SAME' instead.
        form: "split" makes one dense convolution per group; "shifts" adds up shifted images, each
            times one weight per channel, for as many groups as channels in and out; "native" is
            one grouped convolution. By default native, but not on CPUs, where XLA's grouped
            convolution is several times slower: there shifts if it can be, else split.

    Returns:
        The result, accumulated in float32. Its type is that of the operands, but float32 on CPUs,
        which have no convolution that adds bfloat16 products up in float32.
    """
    if platform() == "cpu":
        # Converting the rounded operands back to float32 keeps their products exact.
        images, kernel = images.astype(jnp.float32), kernel.astype(jnp.float32)
        depthwise = groups == images.shape[-1] == kernel.shape[-1]
        form = form or ("shifts" if depthwise else "split")
    pads = _pads(images.shape, kernel.shape[0], stride, same_padding)
    if groups > 1 and form == "shifts":
        return _shifts(images, kernel, stride, pads)
    if groups > 1 and form == "split":
        parts = zip(
            jnp.split(images, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True
        )
        return jnp.concatenate([_convolve(x, k, stride, pads, 1) for x, k in parts], axis=-1)
    if groups > 1:
        # XLA's partitioner gathers the whole batch on every device for a grouped convolution.
        return per_device(partial(_convolve, stride=stride, pads=pads, groups=groups))(
            images, kernel
        )
    return _convolve(images, kernel, stride, pads, 1)


def _pads(shape: tuple[int, ...], size: int, stride: int, same: bool) -> Pads:
    """Pixels of padding before and after, along height and width."""
    if not same:
        around = (size - 1) // 2, (size - 1) // 2
        return around, around
    _, height, width, _ = shape
    total_height, total_width = (
        max((math.ceil(length / stride) - 1) * stride + size - length, 0)
        for length in (height, width)
    )
    return (
        (total_height // 2, total_height - total_height // 2),
        (total_width // 2, total_width - total_width // 2),
    )


def _convolve(images: Array, kernel: Array, stride: int, pads: Pads, groups: int) -> Array:
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _shifts(images: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    size = kernel.shape[0]
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    # The last position of the kernel that still lies within the image.
    height, width = images.shape[1] - size + 1, images.shape[2] - size + 1
    shifted = [
        images[:, row : row + height : stride, column : column + width : stride]
        * kernel[row, column, 0]
        for row in range(size)
        for column in range(size)
    ]
    return functools.reduce(jnp.add, shifted)


def pointwise(
    images: Float[Array, "batch height width channels_in"],
    kernel: Float[Array, "1 1 channels_in channels_out"],
    *,
    stride: int = 1,
) -> Float[Array, "batch height_out width_out channels_out"]:
    """Convolve with a 1x1 kernel, as a product of matrices; type of the result as `convolve`."""
    images = images[:, ::stride, ::stride]
    rows = images.reshape(-1, images.shape[-1])
    kind = jnp.float32 if platform() == "cpu" else images.dtype
    outputs = jnp.matmul(rows, kernel[0, 0], preferred_element_type=kind)
    return outputs.reshape(*images.shape[:-1], -1)


class Convolution(nnx.Module):
    """A square convolution with explicit padding; operands in `dtype`, parameters in float32.

    Initialised as in timm's RegNet: normal with variance 2 / fan_out, where fan_out counts the
    output channels of one group; biases zero.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        same_padding: bool = False,
        use_bias: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        deviation = (2.0 * groups / (size * size * channels_out)) ** 0.5
        shape = (size, size, channels_in // groups, channels_out)
        self.kernel = nnx.Param(deviation * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels_out, jnp.float32)) if use_bias else None
        self.stride = stride
        self.groups = groups
        self.same_padding = same_padding
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self, images: Float[Array, "batch height width channels_in"]
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Convolve and add the bias, both in the type that `convolve` gives its result."""
        images = images.astype(self.dtype)
        kernel = whole(self.kernel[...], self.dtype).astype(self.dtype)
        if kernel.shape[0] == 1:
            outputs = pointwise(images, kernel, stride=self.stride)
        else:
            outputs = convolve(
                images,
                kernel,
                stride=self.stride,
                groups=self.groups,
                same_padding=self.same_padding,
            )
        # In float32 the sum would be a kernel of its own on accelerators, not part of the product.
        return outputs if self.bias is None else outputs + self.bias[...].astype(outputs.dtype)
