"""Attention by the fused kernels of cuDNN, on NVIDIA GPUs and in half precision."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deit_jax.devices import on_nvidia

_LARGEST_HEAD = 128
ByHead = Float[Array, "batch tokens heads features"]


def attend_cudnn(
    query: Float[Array, "rows width"],
    key: Float[Array, "rows width"],
    value: Float[Array, "rows width"],
    batch: int,
    heads: int,
) -> Float[Array, "rows width"]:
    """Return what `attention.attend` returns; no scores reach memory.

    JAX lets cuDNN differentiate odd numbers of tokens in no public way. Where the private one is
    not what it was, another token is added and declared to be padding.
    """
    tokens = query.shape[0] // batch
    by_head = [x.reshape(batch, tokens, heads, -1) for x in (query, key, value)]
    if tokens % 2 == 0:
        out = jax.nn.dot_product_attention(*by_head, implementation="cudnn")
    elif differentiates_odd(tokens, by_head[0].shape[-1], query.dtype):
        out = _attend_odd(*by_head)
    else:
        out = _attend_padded(*by_head)
    return out.reshape(query.shape)


def _attend_padded(*by_head: ByHead) -> ByHead:
    batch, tokens = by_head[0].shape[:2]
    lengths = jnp.full((batch,), tokens, jnp.int32)
    out = jax.nn.dot_product_attention(
        *(jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in by_head),
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return out[:, :tokens]


@jax.custom_vjp
def _attend_odd(query: ByHead, key: ByHead, value: ByHead) -> ByHead:
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _odd_forward(query: ByHead, key: ByHead, value: ByHead) -> tuple[ByHead, tuple[Array, ...]]:
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    out, log_total = cudnn.dot_product_attention(
        query, key, value, scale=1.0 / math.sqrt(query.shape[-1]), return_residual=True
    )
    return out, (query, key, value, log_total, out)


def _odd_backward(saved: tuple[Array, ...], grad: ByHead) -> tuple[ByHead, ...]:
    """As JAX's own rule (0.10 to 0.11), which refuses odd lengths as if there were a bias."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    query, key, value, log_total, out = saved
    absent = jnp.zeros(0, query.dtype)
    grads = cudnn._dot_product_attention_bwd_p_wrapper.bind(
        *(query, key, value),
        *[absent] * 7,  # Bias, lengths and offsets of packed sequences, pages.
        *(log_total, out, grad),
        scale=1.0 / math.sqrt(query.shape[-1]),
        seed=42,
        dropout_rate=0.0,
        variadic_args=(False, False),
        mask_type=cudnn.MaskType.NO_MASK,
        layout=cudnn.AttentionLayout.BTNH.value,
        sliding_window_length=None,
    )
    return tuple(grads[:3])


_attend_odd.defvjp(_odd_forward, _odd_backward)


@functools.cache
def differentiates_odd(tokens: int, features: int, dtype: Any) -> bool:
    """Return whether `_attend_odd` works: by trying, on the GPU if there is one.

    It calls what JAX has under private names, and hands cuDNN what JAX has never let it have.
    """

    def loss(*by_head: ByHead) -> Array:
        return _attend_odd(*by_head).astype(jnp.float32).sum()

    shapes = [jax.ShapeDtypeStruct((1, tokens, 1, features), dtype)] * 3
    grad = jax.grad(loss, argnums=(0, 1, 2))
    try:
        if jax.default_backend() == "gpu":
            jax.jit(grad).lower(*shapes).compile()
        else:
            jax.eval_shape(grad, *shapes)
    # Whatever another JAX or cuDNN says against it: there is another way.
    except Exception:
        return False
    return True


def takes(dtype: Any, features: int) -> bool:
    """Return whether the device has these kernels for heads of so many features."""
    half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    return half and features % 8 == 0 and features <= _LARGEST_HEAD and on_nvidia()
