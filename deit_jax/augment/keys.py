"""One random key per image, and a separate stream of it for every purpose.

All randomness of a training step comes from these keys, so the same image in the same epoch is
treated the same way on any number of devices, hosts and workers, before and after a resume.
"""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from deit_jax.seeds import seed_key


def image_keys(
    seed: int | Int[Array, ""],
    epoch: Int[Array, " batch"],
    index: Int[Array, " batch"],
    copy: Int[Array, " batch"],
) -> Key[Array, " batch"]:
    """Return one key per image, a function of nothing but its four arguments.

    Args:
        seed: Seed of the run.
        epoch: Epoch of each image, counted from 0.
        index: Position of each image in its data set.
        copy: Which of the repeated copies of the image this is (repeated augmentation), from 0.

    Returns:
        Typed threefry keys. They stay the same across JAX versions and backends, because the
        implementation is named here and not left to `jax_default_prng_impl`.
    """
    root = seed_key(seed, impl="threefry2x32")

    def one(epoch: Array, index: Array, copy: Array) -> Array:
        key = jax.random.fold_in(root, epoch)
        return jax.random.fold_in(jax.random.fold_in(key, index), copy)

    return jax.vmap(one)(jnp.asarray(epoch), jnp.asarray(index), jnp.asarray(copy))


def purpose(keys: Key[Array, " batch"], name: str) -> Key[Array, " batch"]:
    """Derive the keys for one named use ("augment", "mix", "model", ...).

    The name enters as its CRC-32, so adding a purpose never changes the draws of another.
    """
    constant = zlib.crc32(name.encode())
    return jax.vmap(lambda key: jax.random.fold_in(key, constant))(keys)
