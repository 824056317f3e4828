"""What is compared: one of our models, its weights, and the images both sides are shown."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from deit_jax.augment.normalise import to_input
from deit_jax.models.functional import ModelFunction, abstract
from deit_jax.models.registry import model_builder
from deit_jax.preprocessing import ASSUMED, Preprocessing
from deit_jax.trees import Tree
from deit_jax.weights.description.config import NOTHING, Description

Images = Float[np.ndarray, "batch height width 3"]
PixelBatch = UInt8[np.ndarray, "batch height width 3"]


@dataclass(frozen=True)
class OurModel:
    """One of our models with its weights.

    Attributes:
        name: registered name.
        function: its static half.
        params: parameters, numpy or JAX arrays.
        batch_stats: BatchNorm statistics, {} without.
        weights: where they came from, for people.
        tensors: of the file itself, under their names there, as read without the help of this
            package; None where there is no such file.
        preprocessing: of the images.
        said: what the file says of its network, by which the other side is built.
        left_over: names of the file's tensors that are no part of the network.
        assumed: a sentence about what was assumed of the network on both sides, or "".
    """

    name: str
    function: ModelFunction
    params: Tree
    batch_stats: Tree
    weights: str
    tensors: dict[str, np.ndarray] | None = None
    preprocessing: Preprocessing = ASSUMED
    said: Description = NOTHING
    left_over: frozenset[str] = frozenset()
    assumed: str = ""

    @property
    def module(self) -> Any:
        """A live module with shapes in place of arrays, to ask for its sizes."""
        return self.function.merge(*jax.eval_shape(lambda: (self.params, self.batch_stats)))

    def normalise(self, pixels: PixelBatch) -> Images:
        """Return what both networks are shown, once for both: the same as in evaluation."""
        return np.asarray(to_input(pixels, self.preprocessing.mean, self.preprocessing.std))


def random_subject(name: str, seed: int, **options: Any) -> OurModel:
    """Return a registered model with random weights of the size that trained ones have.

    Args:
        name: one of `list_models()`.
        seed: of the weights.
        **options: as for `model_builder`.
    """
    function, shapes, statistics = abstract(model_builder(name, **options))
    params, batch_stats = random_weights(shapes, statistics, seed)
    return OurModel(name, function, params, batch_stats, f"random weights, seed {seed}")


def random_weights(shapes: Tree, statistics: Tree, seed: int) -> tuple[Tree, Tree]:
    """Draw parameters and BatchNorm statistics; no zero and no one hides a mistake.

    (The initialisation of training has both: a bias that is added twice would go unnoticed.)
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        kind = path[-1].key
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if kind in ("scale", "var", "gamma"):
            return 1 + 0.1 * np.clip(noise, -3, 3)
        if kind in ("bias", "mean"):
            return 0.1 * noise
        if kind == "kernel":
            # Of a grouped convolution too: all axes but the last are what is summed over.
            return noise / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))
        # Embeddings. The class token, to which nothing else is added, has a variance so small that
        # the epsilon of the first normalisation shows.
        return np.float32(0.02) * noise

    return (
        jax.tree_util.tree_map_with_path(draw, shapes),
        jax.tree_util.tree_map_with_path(draw, statistics),
    )


def noise_pixels(count: int, size: tuple[int, int], seed: int = 0) -> PixelBatch:
    """Return images of independent random pixels: no symmetry hides a flip or a transpose."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)
