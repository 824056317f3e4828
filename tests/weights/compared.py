"""Our models and those of PyTorch, beside each other."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deit_jax.models.functional import split
from deit_jax.trees import flatten
from tests.weights.small_models import DISTILLED, PLAIN, images, torch_logits

# Logits are about 1; both sides compute in float32 and add in another order.
LOGITS = 1e-5
KINDS = {"teacher": DISTILLED, "vit": PLAIN}


def assert_same_logits(model, theirs, pixels=None):
    pixels = images() if pixels is None else pixels
    ours = np.asarray(jax.jit(lambda x: model(x))(pixels))
    np.testing.assert_allclose(ours, torch_logits(theirs, pixels), atol=LOGITS, rtol=0)


def parameters(model):
    return {path: np.asarray(array) for path, array in flatten(split(model)[1]).items()}


def randomise(model, seed=0):
    generator = np.random.default_rng(seed)
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    fresh = jax.tree.map(lambda a: jnp.float32(0.1 * generator.standard_normal(a.shape)), state)
    nnx.update(model, fresh)
