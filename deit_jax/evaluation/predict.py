"""What a model says is on images: files in, the likeliest classes of each head out."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from deit_jax.augment.normalise import to_input
from deit_jax.data.images.crop import Pixels, evaluation_view
from deit_jax.data.images.decode import decode_and_tell
from deit_jax.data.images.file import read_image_file
from deit_jax.data.images.names import EXTENSIONS
from deit_jax.data.images.oddities import rotation
from deit_jax.data.images.tree import image_tree
from deit_jax.data.open_file_limit import check_open_files
from deit_jax.models.functional import ModelFunction
from deit_jax.models.fusion import fuse
from deit_jax.preprocessing import EvalView, Preprocessing
from deit_jax.trees import Tree
from deit_jax.weights.pretrained import imagenet_class_names
from deit_jax.weights.reading import Weights

ANSWERING_ORDER: Final = ("fused", "class", "distillation")
"""The order in which predictions have their heads."""

Probabilities = Callable[
    [Tree, Tree, UInt8[Array | np.ndarray, "batch height width 3"]],
    dict[str, Float[Array, "batch classes"]],
]


class Guess(NamedTuple):
    """One class a head thinks of: its number, its name, its probability."""

    label: int
    name: str
    probability: float


class Prediction(NamedTuple):
    """The likeliest classes of one image by head, or why it could not be read.

    Heads are "fused", "class" and "distillation", or "class" alone. A note says what the network
    was hardly shown of an image that could be read.
    """

    path: str
    heads: dict[str, list[Guess]]
    error: str = ""
    note: str = ""

    @property
    def guesses(self) -> list[Guess]:
        """What the model answers: of two heads, of both together."""
        return self.heads.get("fused") or self.heads.get("class", [])


def find_images(paths: Sequence[str]) -> list[str]:
    """Return files as they are named, and all images below folders, in order of path.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no images.
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no file or folder {path}.")
        if not os.path.isdir(path):
            found.append(path)
            continue
        below = sorted(
            os.path.join(path, folder, name)
            for folder, names in image_tree(path).items()
            for name in names
        )
        if not below:
            raise FileNotFoundError(f"There are no images ({', '.join(EXTENSIONS)}) in {path}.")
        found += below
    return found


def read_view(path: str, size: tuple[int, int], view: EvalView) -> Pixels:
    """Return what evaluation sees of a file: resized (by Pillow), the centre cut out.

    Args:
        path: of the image.
        size: (height, width) wanted, in pixels.
        view: how it is resized and cut.

    Raises:
        ValueError, OSError: it cannot be read or is no complete image; names it.
    """
    return _read(path, size, view)[0]


def _read(path: str, size: tuple[int, int], view: EvalView) -> tuple[Pixels, str]:
    """Return the view, and what people see otherwise: values that 8 bits do not hold, rotation."""
    try:
        data = read_image_file(path)
        pixels, loss = decode_and_tell(data)
        notes = filter(None, (loss, rotation(data)))
        return evaluation_view(pixels, size, view), "; ".join(notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    except MemoryError as error:
        raise ValueError(f"{path}: there is not enough memory for it.") from error


def read_class_names(path: str, num_classes: int) -> list[str]:
    """Read names of classes: a line for each, a JSON list, or a JSON object by index.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a name for each class.
    """
    try:
        # Some editors put a mark in front.
        text = Path(path).read_text(encoding="utf-8-sig")
        names = text.splitlines()
        if text.lstrip()[:1] in ("[", "{"):
            content = json.loads(text)
            names = content if isinstance(content, list) else []
            if isinstance(content, dict):
                names = [content[str(index)] for index in range(len(content))]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no list of class names: {error}.") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is no list of class names.")
    if len(names) != num_classes:
        raise ValueError(
            f"{path} names {len(names)} classes but the model has {num_classes}; give one for each."
        )
    return names


def names_of_classes(weights: Weights) -> tuple[Sequence[str], str]:
    """Return names that come with weights, ImageNet's, or numbers; and how to have names."""
    names, missing = weights.facts.labels, ""
    if len(names) == weights.num_classes:
        return names, ""
    if weights.facts.imagenet and weights.num_classes == 1000:
        try:
            return imagenet_class_names(), ""
        except FileNotFoundError as error:
            missing = str(error)
    missing = missing or "Nothing says what the classes are called; `predict --classes FILE` does."
    return [f"class {index}" for index in range(weights.num_classes)], missing


def predict(
    model: tuple[ModelFunction, Tree, Tree],
    paths: Sequence[str],
    names: Sequence[str],
    *,
    size: tuple[int, int],
    preprocessing: Preprocessing,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Predict batch by batch; an image that cannot be read gets a prediction that says so.

    Args:
        model: function, parameters, BatchNorm statistics.
        paths: of images.
        names: of the classes.
        size: (height, width) of the model, in pixels.
        preprocessing: of the images.
        top: so many classes of each head.
        batch_size: images at a time.

    Raises:
        ValueError: images cannot be prepared as the weights want them.
    """
    shown = preprocessing.require()
    function, params, batch_stats = model
    probabilities = make_probabilities(function, shown)
    batch_size = min(batch_size, len(paths))
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        # Always of one shape, so that one program is compiled.
        pixels = np.zeros((batch_size, *size, 3), np.uint8)
        told = [_fill(pixels[row], path, shown.view) for row, path in enumerate(chunk)]
        found = jax.device_get(probabilities(params, batch_stats, pixels))
        order = [head for head in ANSWERING_ORDER if head in found]
        for row, path in enumerate(chunk):
            error, note = told[row]
            heads = {h: likeliest(found[h][row], names, top) for h in order if not error}
            yield Prediction(path, heads, error, note)


def make_probabilities(function: ModelFunction, shown: Preprocessing) -> Probabilities:
    """Return `probabilities(params, batch_stats, pixels) -> {head: [batch, classes]}`, jitted."""

    @jax.jit
    def probabilities(
        params: Tree, batch_stats: Tree, pixels: UInt8[Array | np.ndarray, "batch height width 3"]
    ) -> dict[str, Array]:
        images = to_input(pixels, shown.mean, shown.std)
        (first, second), _ = function.head_logits(params, batch_stats, images)
        heads = {"class": first}
        if second is not None:
            heads |= {"fused": fuse(first, second), "distillation": second}
        return {head: jax.nn.softmax(logits) for head, logits in heads.items()}

    return probabilities


def likeliest(
    probabilities: Float[np.ndarray, " classes"], names: Sequence[str], top: int
) -> list[Guess]:
    """Return the classes of the largest probabilities; of equal ones the lower index first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(int(i), names[i], float(probabilities[i])) for i in order]


def _fill(row: Pixels, path: str, view: EvalView) -> tuple[str, str]:
    """Read an image into a row of the batch; return why it cannot be read, and a note, or ""."""
    try:
        row[:], loss = _read(path, (row.shape[0], row.shape[1]), view)
    except OSError as error:
        check_open_files(error)
        return f"{path}: {error.strerror or error}.", ""
    except ValueError as error:
        return str(error), ""
    return "", f"{path}: {loss}." if loss else ""
