"""A classifier with all that belongs to its weights: classes, preprocessing, and how to ask it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from deit_jax.augment.normalise import to_input
from deit_jax.data.images.crop import evaluation_view
from deit_jax.evaluation.predict import (
    ANSWERING_ORDER,
    Prediction,
    Probabilities,
    likeliest,
    make_probabilities,
    read_view,
)
from deit_jax.models.frozen import fold_batch_norm
from deit_jax.models.functional import Classifier, ModelFunction, split
from deit_jax.models.fusion import fuse
from deit_jax.preprocessing import Preprocessing
from deit_jax.trees import Tree

AnyImage = str | os.PathLike[str] | Image.Image | UInt8[np.ndarray, "height width 3"]
"""An image: a path, an image of Pillow, or RGB levels."""

LogitsFunction = Callable[
    [Tree, Float[Array, "batch height width 3"]], Float[Array, "batch classes"]
]
"""A pure function of parameters and normalised images."""


@dataclass(frozen=True)
class LoadedModel:
    """What `load_model` returns.

    Attributes:
        model: the NNX module; see `create_model`.
        name: registered name of the model.
        source: where its weights are from.
        class_names: one for each class; "class 0" and so on where nothing says them.
        image_size: (height, width) in pixels.
        preprocessing: how the weights want their images.
        notes: sentences about the weights, and about what had to be assumed.
    """

    model: Classifier = field(repr=False)
    name: str
    source: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    notes: tuple[str, ...] = field(default=(), repr=False)

    def preprocess(
        self, images: AnyImage | Sequence[AnyImage] | UInt8[np.ndarray, "batch height width 3"]
    ) -> Float[Array, "batch {self.image_size[0]} {self.image_size[1]} 3"]:
        """Return images as the model takes them: resized, cropped, normalised as it wants.

        Args:
            images: one or several; of an array of several, all of one size.

        Raises:
            ValueError, OSError: one cannot be read, is no image, or cannot be prepared so.
        """
        shown = self.preprocessing.require()
        return to_input(self._views(_listed(images)), shown.mean, shown.std)

    def predict(
        self,
        images: AnyImage | Sequence[AnyImage] | UInt8[np.ndarray, "batch height width 3"],
        *,
        top: int = 5,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Return the likeliest classes of each image, by name, for each head and both together.

        Args:
            images: as for `preprocess`.
            top: so many classes.
            batch_size: images at a time.

        Raises:
            ValueError, OSError: as `preprocess`.
        """
        listed = _listed(images)
        size = min(batch_size, max(1, len(listed)))
        _, params, batch_stats = self._split
        predictions = []
        for start in range(0, len(listed), size):
            chunk = listed[start : start + size]
            # Always of one shape, so that one program is compiled.
            pixels = np.zeros((size, *self.image_size, 3), np.uint8)
            pixels[: len(chunk)] = self._views(chunk)
            found = jax.device_get(self._probabilities(params, batch_stats, pixels))
            for row, image in enumerate(chunk):
                heads = {
                    head: likeliest(found[head][row], self.class_names, top)
                    for head in ANSWERING_ORDER
                    if head in found
                }
                path = os.fspath(image) if isinstance(image, str | os.PathLike) else ""
                predictions.append(Prediction(path, heads))
        return predictions

    def freeze(self) -> tuple[LogitsFunction, Tree]:
        """Return the model as a pure function and its parameters, such as a teacher is.

        BatchNorm is folded into the convolutions, so that nothing is left to update. Of two heads
        the function returns the mean of both. It works inside jit; its parameters are the first
        argument, so that they are no constants of the program.
        """
        function, params = fold_batch_norm(*self._split)

        def logits(
            params: Tree, images: Float[Array, "batch height width 3"]
        ) -> Float[Array, "batch classes"]:
            return fuse(*function.head_logits(params, {}, images)[0])

        return logits, params

    def _views(self, images: Sequence[AnyImage]) -> UInt8[np.ndarray, "batch height width 3"]:
        """Return images resized and cropped."""
        view = self.preprocessing.require().view
        views = np.empty((len(images), *self.image_size, 3), np.uint8)
        for row, image in enumerate(images):
            if isinstance(image, str | os.PathLike):
                views[row] = read_view(os.fspath(image), self.image_size, view)
            else:
                views[row] = evaluation_view(_pixels(image), self.image_size, view)
        return views

    @cached_property
    def _split(self) -> tuple[ModelFunction, Tree, Tree]:
        return split(self.model)

    @cached_property
    def _probabilities(self) -> Probabilities:
        return make_probabilities(self._split[0], self.preprocessing.require())


def _listed(
    images: AnyImage | Sequence[AnyImage] | UInt8[np.ndarray, "batch height width 3"],
) -> list[AnyImage]:
    single = isinstance(images, str | os.PathLike | Image.Image)
    if single or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]  # type: ignore[list-item]
    return list(images)  # type: ignore[arg-type]


def _pixels(image: Image.Image | np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"An image is {image.dtype} {list(image.shape)}; give RGB levels from 0 to 255, uint8 "
            "[height, width, 3], or an image of Pillow."
        )
    return image
