"""Names and integer fingerprints of the arrays of a tree, the same under every sharding.

File formats for arrays do not notice a flipped bit. A fingerprint that is computed on the device
before an array is written, and again after it was read, does; it needs no copy to the host, and
because integer addition does not depend on order, neither does it depend on the device count.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from deit_jax.runs.processes import fetched

_WORD_TYPES = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their path, such as `params/blocks/0/attn/qkv/kernel`.

    Raises:
        ValueError: two leaves have the same path, because a key contains a slash.
    """
    paths = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    if len(named) != len(paths):
        raise ValueError("Two arrays of the tree have the same path; keys must not contain '/'.")
    return named


def digest(tree: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays: equal only if every bit is.

    In a run of many processes, all of them must call this if arrays are split over them.
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(fetched(tree)):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def fingerprints(tree: Any) -> dict[str, str]:
    """Return 64 bits in hexadecimal for each array of a tree, by path.

    One flipped bit always changes the first half: it adds plus or minus a power of two below 2^32,
    times an odd number, which is not 0 modulo 2^32. The second half is a sum over a bijective
    scrambling of each element, so that damage to many elements cannot cancel in both.

    Args:
        tree: jax or numpy arrays of at most 32 bits per element, typed keys, or both; sharded in
            any way. In a run of many processes, all of them must call this.

    Raises:
        TypeError: an array has elements of 64 bits or of a complex type.
    """
    halves = {}
    for name, leaf in named_leaves(tree).items():
        halves[name] = _halves(_raw(name, leaf))
        # Sums across devices one at a time: CPU devices deadlock over many programs in flight.
        if isinstance(leaf, jax.Array) and not leaf.is_fully_replicated:
            jax.block_until_ready(halves[name])
    return {name: f"{a:08x}{b:08x}" for name, (a, b) in jax.device_get(halves).items()}


def _raw(name: str, leaf: Any) -> Shaped[Array, "..."]:
    """Replace typed keys by their words, and refuse what `jit` would silently narrow."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    if leaf.dtype.itemsize not in _WORD_TYPES or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise TypeError(f"{name} is {leaf.dtype}; arrays must be real, of at most 32 bits.")
    return leaf


@jax.jit
def _halves(array: Shaped[Array, "..."]) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Two sums modulo 2^32 over all elements, each mixed with its position.

    One compilation per shape and type. All of a model in one function would take XLA far longer
    than the repeated blocks of a transformer deserve.
    """
    if array.dtype == jnp.bool_:
        words = array.astype(jnp.uint32)
    else:
        word_type = _WORD_TYPES[array.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(array, word_type).astype(jnp.uint32)
    # A position made of iotas instead of a reshape: sharded arrays stay where they are.
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        position = position * jnp.uint32(size % 2**32) + index
    place = _scramble(position + jnp.uint32(0x9E3779B9))
    first = jnp.sum(words * (place | jnp.uint32(1)), dtype=jnp.uint32)
    second = jnp.sum(_scramble(words ^ place), dtype=jnp.uint32)
    return first, second


def _scramble(words: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Apply the finaliser of MurmurHash3 (Appleby): a bijection of 32-bit words."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
