"""The function that an exported program computes, and what is said about it beside the program."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from deit_jax.augment.normalise import to_input
from deit_jax.augment.pipeline import normalise
from deit_jax.data.images.crop import evaluation_view
from deit_jax.export.resizing import require_computable, shown_pixels
from deit_jax.export.subject import ExportSubject
from deit_jax.version import __version__

# Programs and the model add up in another order.
LOGITS_TOLERANCE = 1e-5
# Where resizing rounds one value in thousands to the next level, of 255.
PROBABILITY_TOLERANCE = 2e-3


@dataclass(frozen=True, eq=False)
class Served:
    """What is computed of a batch of images.

    Attributes:
        subject: the model.
        preprocess: whether images come in as they were decoded, and probabilities go out; else
            normalised images, and logits.
    """

    subject: ExportSubject
    preprocess: bool

    def __post_init__(self) -> None:
        if self.preprocess:
            require_computable(self.subject.weights.facts.preprocessing.view, self.subject.size)

    @property
    def input(self) -> tuple[str, Any, tuple[Any, ...]]:
        """Name, type and shape of what comes in; sides with a name are any number."""
        if self.preprocess:
            return "pixels", jnp.uint8, ("batch", "height", "width", 3)
        return "images", jnp.float32, ("batch", *self.subject.size, 3)

    @property
    def output(self) -> tuple[str, Any, tuple[Any, ...]]:
        """Name, type and shape of what goes out."""
        name = "probabilities" if self.preprocess else "logits"
        return name, jnp.float32, ("batch", self.subject.weights.num_classes)

    @property
    def argument(self) -> jax.ShapeDtypeStruct:
        """What it is traced with."""
        _, dtype, shape = self.input
        text = ", ".join(map(str, shape))
        return jax.ShapeDtypeStruct(jax.export.symbolic_shape(text), dtype)

    def __call__(self, batch: Array) -> Array:
        """Compute it, inside of a trace."""
        if not self.preprocess:
            return self.subject.folded(batch)
        wanted = self.subject.weights.facts.preprocessing
        with jax.default_matmul_precision("highest"):
            levels = shown_pixels(batch, self.subject.size, wanted.view).astype(jnp.uint8)
        return jax.nn.softmax(self.subject.folded(normalise(levels, wanted.mean, wanted.std)))

    def examples(self) -> list[np.ndarray]:
        """Return batches of one and of seven images of noise, to be verified with."""
        rng = np.random.default_rng(0)
        height, width = self.subject.size
        if self.preprocess:
            # One smaller than what the model sees, and larger ones.
            sizes = (1, height // 2 + 3, width - 1), (7, 2 * height + 5, width + width // 3)
            return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        return [
            rng.standard_normal((batch, height, width, 3)).astype(np.float32) for batch in (1, 7)
        ]

    def expected(self, batch: np.ndarray) -> np.ndarray:
        """Return what the model itself says of such a batch, prepared by Pillow."""
        if not self.preprocess:
            return np.asarray(self.subject.logits(batch))
        return np.asarray(jax.nn.softmax(self.subject.logits(self._prepared(batch))))

    def batch_of(self, pixels: UInt8[np.ndarray, "height width 3"]) -> np.ndarray:
        """Return the batch of this one image that the program takes."""
        return pixels[None] if self.preprocess else np.asarray(self._prepared(pixels[None]))

    def _prepared(self, batch: np.ndarray) -> Array:
        """Return normalised images, by Pillow."""
        wanted = self.subject.weights.facts.preprocessing
        views = np.stack(
            [evaluation_view(image, self.subject.size, wanted.view) for image in batch]
        )
        return to_input(views, wanted.mean, wanted.std)

    def difference(self, run: Any) -> float:
        """Compare a program with the model on the examples; return the largest difference.

        Raises:
            ValueError: it is larger than rounding explains.
        """
        largest = 0.0
        for batch in self.examples():
            expected = self.expected(batch)
            apart = float(np.abs(np.asarray(run(batch)) - expected).max())
            scale = max(1.0, float(np.abs(expected).max()))
            most = PROBABILITY_TOLERANCE if self.preprocess else LOGITS_TOLERANCE * scale
            if not apart <= most:
                raise ValueError(
                    f"The exported program differs from the model by {apart:.2g} in its "
                    f"{self.output[0]}, which is more than rounding ({most:.2g}); nothing was "
                    "written."
                )
            largest = max(largest, apart)
        return largest

    def description(self) -> dict[str, Any]:
        """Return what programs that serve it have to know, for JSON."""
        weights, view = self.subject.weights, self.subject.weights.facts.preprocessing.view
        puts = {}
        for what, (name, dtype, shape) in (("input", self.input), ("output", self.output)):
            puts[what] = {"name": name, "dtype": np.dtype(dtype).name, "shape": shape}
        puts["input"]["layout"] = "RGB, channels last" + ("" if self.preprocess else ", normalised")
        return {
            "model": weights.model_name,
            **puts,
            "class_names": self.subject.labels,
            "resize": view.sides(self.subject.size),
            "crop": self.subject.size,
            "preprocessing": weights.facts.preprocessing.to_json() | {"inside": self.preprocess},
            "deit_jax": __version__,
        }
