"""A random key from all 64 bits of a seed."""

import jax
import numpy as np
from jaxtyping import Array, Int, Key


def seed_key(seed: int | Int[Array, ""], impl: str | None = None) -> Key[Array, ""]:
    """Return the root key of a seed; seeds that differ anywhere in 64 bits have different keys.

    Without 64-bit integers `jax.random.key` keeps the low half of a seed only. Below 2**32 the key
    is the one that it makes.

    Args:
        seed: at least 0 and below 2**64; an array is as in `jax.random.key`.
        impl: of the random numbers; JAX's default if None.
    """
    if not isinstance(seed, int | np.integer) or seed < 1 << 32:
        return jax.random.key(seed, impl=impl)
    high, low = divmod(int(seed), 1 << 32)
    return jax.random.fold_in(jax.random.key(low, impl=impl), high)
