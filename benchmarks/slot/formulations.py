"""Formulations that the house has left behind, for a GPU to say whether it was right.

Each is patched in while a program is traced, so that a variant is the house's own step but for one
thing.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from deit_jax.models import attention, convnet, convolution, cudnn_attention, layer_norm
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


def _padded() -> Patches:
    """197 tokens reach cuDNN as 198, the last of which is declared to be none."""
    return [(cudnn_attention, "differentiates_odd", lambda *_: False)]


def _normal_rows() -> Patches:
    """LayerNorm's backward pass gets the normal rows in float32, as on CPUs."""
    return [(layer_norm, "_keeps_rows", lambda x: x.dtype != jnp.float32)]


def _one_projection() -> Patches:
    """One product for queries, keys and values, which are then cut out of it."""

    def project(x: Array, kernel: Array, bias: Array, parts: int) -> tuple[Array, ...]:
        return tuple(jnp.split(dense(x, kernel, bias, x.dtype), parts, axis=-1))

    return [(attention, "dense_apart", project)]


def _wide_epilogues() -> Patches:
    """Biases of convnets are added in float32, and sums of blocks where the next one reads them.

    XLA then gives only 1 of RegNetY-16GF's 77 products and none of its 19 convolutions an epilogue.
    """

    def convolve(self: Any, images: Array) -> Array:
        images, kernel = images.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if kernel.shape[0] == 1:
            out = convolution.pointwise(images, kernel, stride=self.stride)
        else:
            out = convolution.convolve(images, kernel, stride=self.stride, groups=self.groups)
        return out if self.bias is None else out + self.bias[...]

    return [
        (convolution.Convolution, "__call__", convolve),
        (convnet, "platform", lambda: "cpu"),
    ]


FORMULATIONS: dict[str, Callable[[], Patches]] = {
    "padded attention": _padded,
    "normal rows": _normal_rows,
    "one projection": _one_projection,
    "wide epilogues": _wide_epilogues,
}
"""By name, what each patches."""
