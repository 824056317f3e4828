"""Taking a model apart into a static structure and plain nested dicts of arrays, and back.

Training never holds a live module: it splits one once, and merges it inside the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.trees import Tree

HeadLogits = tuple[Float[Array, "batch classes"], Float[Array, "batch classes"] | None]
"""Class-head logits, and distillation-head logits where the model has such a head."""

Builder = Callable[[nnx.Rngs], nnx.Module]


class Classifier(Protocol):
    """What every registered model offers.

    Attributes:
        num_classes: classes of each head.
        image_size: (height, width) in pixels.
        has_distillation_head: whether `head_logits` returns a second head's logits.
    """

    num_classes: int
    image_size: tuple[int, int]
    has_distillation_head: bool

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """Return inference logits; of two heads, the mean of both."""
        ...

    def head_logits(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> HeadLogits:
        """Return both heads' logits; see `ModelFunction.head_logits`."""
        ...

    def activations(
        self, images: Float[Array, "batch height width 3"]
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Return every intermediate result of inference by its name in timm, in order."""
        ...


@dataclass(frozen=True)
class ModelFunction:
    """The static half of a model: everything but its arrays. Hashable, so jit may close over it."""

    graphdef: nnx.GraphDef

    def merge(self, params: Tree, batch_stats: Tree) -> Classifier:
        """Return a live module around the given arrays."""
        return cast(Classifier, nnx.merge(self.graphdef, params, batch_stats))

    def head_logits(
        self,
        params: Tree,
        batch_stats: Tree,
        images: Float[Array, "batch height width 3"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> tuple[HeadLogits, Tree]:
        """Run the model; return both heads' logits and the BatchNorm statistics afterwards.

        `keys` is one key per image, for dropout and stochastic depth; without it neither acts.
        With `train`, BatchNorm uses and updates the statistics of the (global) batch.
        """
        model = self.merge(params, batch_stats)
        logits = model.head_logits(images, keys=keys, train=train)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def split(model: nnx.Module | Classifier) -> tuple[ModelFunction, Tree, Tree]:
    """Split a live model into its structure, its parameters and its BatchNorm statistics."""
    parts: tuple[Any, ...] = nnx.split(model, nnx.Param, nnx.BatchStat)
    graphdef, params, batch_stats = parts
    return ModelFunction(graphdef), nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def abstract(build: Builder) -> tuple[ModelFunction, Tree, Tree]:
    """As `split`, with shapes in place of arrays: nothing is computed."""
    return split(nnx.eval_shape(lambda: build(_Rngs(jax.random.key(0)))))


def initialise(build: Builder, key: Key[Array, ""]) -> tuple[Tree, Tree]:
    """Return freshly initialised (parameters, BatchNorm statistics); may be called inside jit."""
    _, params, batch_stats = split(build(_Rngs(key)))
    return params, batch_stats


class _Rngs(nnx.Rngs):
    """The one stream of keys of `nnx.Rngs(key)`, counted in Python.

    Inside a trace, each update of NNX's own counter asks a tracer for its sharding, and the error
    message of that, which nobody sees, took most of the time of building a model.
    """

    def __init__(self, key: Key[Array, ""]) -> None:
        self.default = _CountingStream(key, tag="default")


class _CountingStream(nnx.RngStream):
    drawn = 0

    def __call__(self) -> Key[Array, ""]:
        self.drawn += 1
        return jax.random.fold_in(self.key[...], self.drawn - 1)


def count_parameters(params: Tree) -> int:
    """Count the scalars in a parameter tree (arrays or shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
