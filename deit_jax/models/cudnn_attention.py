"""Attention by the fused kernels of cuDNN, on NVIDIA GPUs and in half precision."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deit_jax.devices import platform

_LARGEST_HEAD = 128


def attend_cudnn(
    query: Float[Array, "rows width"],
    key: Float[Array, "rows width"],
    value: Float[Array, "rows width"],
    batch: int,
    heads: int,
) -> Float[Array, "rows width"]:
    """Return what `attention.attend` returns; no scores reach memory.

    JAX hands an odd number of tokens to the forward pass only, so another one is added, and
    declared to be padding.
    """
    tokens = query.shape[0] // batch
    padding = tokens % 2
    lengths = jnp.full((batch,), tokens, jnp.int32) if padding else None

    def by_head(x: Array) -> Float[Array, "batch padded heads features"]:
        x = x.reshape(batch, tokens, heads, -1)
        return jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))

    out = jax.nn.dot_product_attention(
        by_head(query),
        by_head(key),
        by_head(value),
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return out[:, :tokens].reshape(query.shape)


def takes(dtype: Any, features: int) -> bool:
    """Return whether the device has these kernels for heads of so many features."""
    half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    return half and features % 8 == 0 and features <= _LARGEST_HEAD and _has_kernels()


def _has_kernels() -> bool:
    """Return whether the device is an NVIDIA GPU of compute capability 8.0 or higher."""
    if platform() != "gpu":
        return False
    device = jax.devices()[0]
    if device.platform != "gpu":
        # Compiled for a GPU that is elsewhere; none older is described (benchmarks/devices).
        return jax.sharding.get_abstract_mesh().abstract_device.device_kind.startswith("NVIDIA")
    return "cuda" in device.client.platform_version and float(device.compute_capability) >= 8.0
