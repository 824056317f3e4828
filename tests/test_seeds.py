import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.augment.keys import image_keys
from deit_jax.seeds import seed_key

pytestmark = pytest.mark.slow

# Equal in their low half, or only a bit apart; the largest is the last that Philox takes.
SEEDS = (0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**63 + 1, 2**64 - 1)


@pytest.mark.parametrize("impl", ["threefry2x32", None])
def test_small_seeds_have_the_keys_of_jax(impl):
    for seed in [seed for seed in SEEDS if seed < 2**32]:
        ours, theirs = seed_key(seed, impl), jax.random.key(seed, impl=impl)
        assert (jax.random.key_data(ours) == jax.random.key_data(theirs)).all()


def test_seeds_are_apart_wherever_they_differ():
    zero = jnp.zeros(1, jnp.int32)
    of_images = jax.jit(
        lambda: [jax.random.key_data(image_keys(seed, zero, zero, zero)) for seed in SEEDS]
    )
    roots = [jax.random.key_data(seed_key(seed)) for seed in SEEDS]
    for keys in (roots, of_images()):
        for one, other in itertools.combinations(map(np.asarray, keys), 2):
            assert (one != other).any()
