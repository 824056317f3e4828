"""What is exported: weights as they were read, and the model they are of, ready to be run."""

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deit_jax.devices import traced_for
from deit_jax.models.frozen import fold_batch_norm
from deit_jax.models.functional import ModelFunction
from deit_jax.models.fusion import fuse
from deit_jax.models.registry import model_spec
from deit_jax.runs.open_weights import read_weights
from deit_jax.trees import Tree
from deit_jax.weights.load import complete_model
from deit_jax.weights.pretrained import imagenet_class_names
from deit_jax.weights.reading import Weights


@dataclass(frozen=True, eq=False)
class ExportSubject:
    """A model with its weights.

    Attributes:
        weights: as read, with the names of the classes if anything says them.
        function: its static half, in float32.
        trees: parameters and BatchNorm statistics.
        frozen: the same with BatchNorm folded, function and parameters.
    """

    weights: Weights
    function: ModelFunction
    trees: tuple[Tree, Tree]
    frozen: tuple[ModelFunction, Tree]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its images in pixels."""
        return self.weights.image_size

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; () if they are not known."""
        return self.weights.facts.labels

    @property
    def kind(self) -> str:
        """For which kind of device it is traced, whatever devices are here.

        Of a transformer, LayerNorm as it is on CPUs, which subtracts the mean first; of a convnet,
        grouped convolutions as one operation each, which CPUs have taken apart.
        """
        return "gpu" if model_spec(self.weights.model_name).convnet else "cpu"

    def logits(
        self, images: Float[Array | np.ndarray, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """Return what the model itself says of normalised images, both heads together."""
        with jax.default_matmul_precision("highest"):
            (first, second), _ = jax.jit(self.function.head_logits)(*self.trees, images)
        return fuse(first, second)

    def folded(self, images: Float[Array, "batch height width 3"]) -> Array:
        """Return the same inside of a trace, with weights that are constants."""
        function, params = self.frozen
        with jax.default_matmul_precision("highest"), traced_for(self.kind):
            (first, second), _ = function.head_logits(params, {}, images)
            return fuse(first, second)


def open_export_subject(path: str, **options: Any) -> ExportSubject:
    """Read weights of any known kind, and complete them to a model.

    Args:
        path: as for `read_weights`.
        **options: of `read_weights`.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or they are not complete, or it is known
            that their images cannot be prepared here.
    """
    weights = read_weights(path, **options)
    facts, count = weights.facts, weights.num_classes
    facts.preprocessing.require()
    labels = facts.labels if len(facts.labels) == count else ()
    if not labels and facts.imagenet and count == 1000:
        # Else classes have numbers; the extra `pretrained` has the names.
        with contextlib.suppress(FileNotFoundError):
            labels = tuple(imagenet_class_names())
    weights = replace(weights, facts=replace(facts, labels=labels))
    function, params, batch_stats = complete_model(weights, dtype=jnp.float32)
    trees = _arrays((params, batch_stats))
    folded, params = fold_batch_norm(function, *trees)
    return ExportSubject(weights, function, trees, (folded, _arrays(params)))


def _arrays(trees: Any) -> Any:
    return jax.tree.map(lambda array: np.asarray(array, np.float32), trees)
