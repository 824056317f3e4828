"""Formulations of the train step that a GPU has to decide about: each can be switched on and off.

What the house does not do itself is patched in while a program is traced, so that a variant is the
house's own step but for one thing.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from deit_jax.models import (
    attention,
    block,
    convnet_layers,
    convolution,
    cudnn_attention,
    layer_norm,
    layers,
    regnet,
    vit,
)
from deit_jax.models.products import dense


@contextlib.contextmanager
def formulated(names: Collection[str]) -> Iterator[None]:
    """Trace inside with these formulations, and without the others.

    Raises:
        ValueError: there is no such formulation.
    """
    if unknown := sorted(set(names) - set(FORMULATIONS)):
        raise ValueError(f"{', '.join(unknown)}: none of {', '.join(FORMULATIONS)}")
    with contextlib.ExitStack() as stack:
        for name, patches in FORMULATIONS.items():
            if name in names:
                for owner, attribute, value in patches():
                    stack.enter_context(_patched(owner, attribute, value))
        yield


@contextlib.contextmanager
def _patched(owner: Any, attribute: str, value: Any) -> Iterator[None]:
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)


Patches = list[tuple[Any, str, Any]]
_LAYER_NORM = layer_norm.layer_norm


def _unpadded() -> Patches:
    """Let cuDNN have odd numbers of tokens: JAX refuses its backward pass by mistake.

    The refusal is meant for attention with a bias; JAX has replaced its absence by an empty array
    by then. The house tries first whether that works; here it is not tried.
    """

    def attend(query: Array, key: Array, value: Array, batch: int, heads: int) -> Array:
        shape = (batch, query.shape[0] // batch, heads, -1)
        by_head = (x.reshape(shape) for x in (query, key, value))
        return cudnn_attention._attend_odd(*by_head).reshape(query.shape)

    return [(cudnn_attention, "attend_cudnn", attend)]


def _kept_statistics() -> Patches:
    """LayerNorm keeps its input, mean and 1 / deviation wherever it runs, as on accelerators."""
    return [(layer_norm, "layer_norm", _LAYER_NORM), (layer_norm, "_keeps_rows", lambda x: True)]


def _free_statistics() -> Callable[..., Array]:
    """Return the normalisation of rows of any type that lets XLA compute its statistics again."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
    def normalise(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
        return forward(x, scale, bias, epsilon)[0]

    def forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, tuple]:
        wide = x.astype(jnp.float32)
        mean = wide.mean(-1, keepdims=True)
        centred = wide - mean
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
        return centred * inverse * scale + bias, (x, mean, inverse, scale)

    def backward(epsilon: float, saved: tuple, grad: Array) -> tuple[Array, Array, Array]:
        x, mean, inverse, scale = saved
        normal = (x.astype(jnp.float32) - mean) * inverse
        scaled = grad * scale
        along = (scaled * normal).mean(-1, keepdims=True)
        grad_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - along * normal)
        return grad_x.astype(x.dtype), (grad * normal).sum(0), grad.sum(0)

    normalise.defvjp(forward, backward)
    return normalise


def _bfloat16_residual() -> Patches:
    """The stream between blocks, and what branches add to it, in bfloat16."""
    embed, drop = vit.VisionTransformer._embed, block.stochastic_depth
    norm = layer_norm.LayerNorm.__call__

    def embed_rounded(self: Any, images: Array, seen: Any = None) -> Array:
        return embed(self, images, seen).astype(jnp.bfloat16)

    def linear(self: Any, x: Array, out_dtype: Any = None) -> Array:
        kind = self.dtype if out_dtype is None else out_dtype
        return dense(x.astype(self.dtype), self.kernel[...], self.bias[...], kind)

    def dropped(x: Array, rate: float, keys: Any) -> Array:
        return drop(x, rate, keys).astype(x.dtype)

    return [
        (vit.VisionTransformer, "_embed", embed_rounded),
        (layers.Linear, "__call__", linear),
        (block, "stochastic_depth", dropped),
        (layer_norm, "layer_norm", _free_statistics()),
        (layer_norm.LayerNorm, "__call__", lambda self, x: norm(self, x).astype(jnp.bfloat16)),
    ]


def _separate_projections() -> Patches:
    """Three products for queries, keys and values, so that nothing has to be cut apart."""

    def project(self: Any, x: Array, tokens: int, queries: int) -> list[Array]:
        width = x.shape[-1]
        kernel, bias = self.qkv.kernel[...], self.qkv.bias[...]
        x = x.astype(self.qkv.dtype)
        first = x if queries == tokens else attention.first_tokens(x, tokens, queries)
        return [
            dense(rows, kernel[:, i * width : (i + 1) * width], bias[i * width :][:width], x.dtype)
            for i, rows in enumerate((first, x, x))
        ]

    return [(attention.Attention, "_project", project)]


def _narrow_epilogues() -> Patches:
    """A frozen RegNetY adds biases and takes ReLU in bfloat16, so that they join the products.

    XLA gives only 1 of 77 products and none of 19 convolutions such an epilogue in float32.
    """

    def convolve(self: Any, images: Array) -> Array:
        images, kernel = images.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if kernel.shape[0] == 1:
            out = convolution.pointwise(images, kernel, stride=self.stride)
        else:
            out = convolution.convolve(images, kernel, stride=self.stride, groups=self.groups)
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)

    def excite(self: Any, x: Array) -> Array:
        means = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
        gate = jax.nn.sigmoid(self.fc2(self.activation(self.fc1(means))))
        return x * gate.astype(x.dtype)

    whole = regnet.RegNetBlock.__call__

    def held(self: Any, x: Array, **options: Any) -> Array:
        # Else XLA fuses a block's sum with the next one's reading of it, not with its product.
        return jax.lax.optimization_barrier(whole(self, x, **options))

    return [
        (convolution.Convolution, "__call__", convolve),
        (convnet_layers.SqueezeExcite, "__call__", excite),
        (regnet.RegNetBlock, "__call__", held),
    ]


FORMULATIONS: dict[str, Callable[[], Patches]] = {
    "unpadded attention": _unpadded,
    "bfloat16 residual": _bfloat16_residual,
    # After the residual, whose normalisation it replaces too.
    "kept statistics": _kept_statistics,
    "separate projections": _separate_projections,
    "narrow epilogues": _narrow_epilogues,
}
"""By name, what each patches."""
