"""Weights in our names and axis order, and what model they are of, as their file shows it."""

from dataclasses import dataclass

from deit_jax.models.functional import abstract
from deit_jax.models.layer_norm import LAYER_NORM_EPSILON
from deit_jax.models.registry import CLASS_HEADS, model_builder, model_spec
from deit_jax.trees import Tree, flatten
from deit_jax.weights.description.config import CONFIG, NOTHING, Description, describe_weights
from deit_jax.weights.description.facts import Facts, facts_of_file
from deit_jax.weights.description.network import Network, registered
from deit_jax.weights.formats.any import WeightFile
from deit_jax.weights.identify import (
    assumed_transformer,
    holds_transformer,
    name_convnet,
    name_transformer,
    transformer_image_size,
    transformer_network,
)
from deit_jax.weights.published import PublishedFile
from deit_jax.weights.report import Row
from deit_jax.weights.transformer_layout import detect_layout, from_foreign


@dataclass(frozen=True)
class Weights:
    """Weights as they were read, in our names and axis order.

    Attributes:
        source: where they are from, for messages.
        layout: "timm" (the reference's too), "transformers", "torchvision",
            "efficientnet_pytorch" or "deit_jax".
        model_name: registered name; "" for a transformer of sizes that are not registered.
        num_classes: of each head; 0 for a backbone without head.
        image_size: (height, width) in pixels.
        params: arrays of the types in the file. A transformer read from a class of transformers
            without second head has a `dist_token` but no `head_dist`.
        batch_stats: BatchNorm statistics, {} for transformers.
        facts: preprocessing, names of the classes.
        published: which known file it is, if it is one.
        left_over: rows for tensors that nothing needs.
        num_heads: of the attention; 0 for convnets, or where nothing says it.
        epsilon: of the layer normalisation.
        said: what the file says of its network; nothing where it was told by its tensors.
        assumed: a sentence about what was assumed for want of that, or "".
    """

    source: str
    layout: str
    model_name: str
    num_classes: int
    image_size: tuple[int, int]
    params: Tree
    batch_stats: Tree
    facts: Facts
    published: PublishedFile | None = None
    left_over: tuple[Row, ...] = ()
    num_heads: int = 0
    epsilon: float = LAYER_NORM_EPSILON
    said: Description = NOTHING
    assumed: str = ""

    @property
    def described(self) -> bool:
        """Whether anything but its tensors says of what network they are."""
        return bool(self.said.words)

    @property
    def network(self) -> Network:
        """What the arrays do not show of their network."""
        return Network(self.model_name, self.num_heads, self.epsilon)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about where the weights are from."""
        height, width = self.image_size
        name = self.model_name or "a vision transformer of its own sizes"
        unlike = self.network.unlike_registered()
        name += f" with {unlike}" if unlike else ""
        kind = f"{name} for {self.num_classes} classes at {height}x{width} pixels"
        read = f"Read as {kind}, in the layout of {self.layout}."
        about = self.facts.preprocessing.note
        return tuple(filter(None, (read, self.assumed, *self.facts.notes, about)))


def interpret(file: WeightFile, model: str = "", like: str = "") -> Weights:
    """Translate a file's tensors, and say what model they are of.

    Args:
        file: as read.
        model: registered name, where it is not to be recognised from names and shapes.
        like: registered name of a model that shall take them.

    Raises:
        ValueError: the tensors are of no model here, or of another than their file says.
    """
    facts = facts_of_file(file)
    layout = detect_layout(file.tensors)
    said = describe_weights(file, model)
    heads, epsilon, assumed = 0, LAYER_NORM_EPSILON, ""
    try:
        if holds_transformer(file.tensors):
            params, batch_stats, extra = from_foreign(file.tensors, layout)
            heads, epsilon = transformer_network(params, said)
            size = transformer_image_size(params, facts.image_size)
            if said.where == CONFIG and facts.image_size not in (None, size):
                raise ValueError(_another_size(facts.image_size or size, size))
            name = name_transformer(params, size, model or said.name)
            assumed = assumed_transformer(name) if not said.words else ""
        else:
            name, assumed = name_convnet(file.tensors, said, model or like)
            _, *shapes = abstract(model_builder(name))
            paths = list(flatten(shapes[0]) | flatten(shapes[1]))
            params, batch_stats, extra = from_foreign(file.tensors, layout, name, paths)
            size = facts.image_size or model_spec(name).image_size
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    rows = [Row(n, file.tensors[n].shape, "left over", "not part of the classifier") for n in extra]
    rows += [Row(n, s, "left over", "beside the network") for n, s in file.beside.items()]
    return Weights(
        str(file.path),
        layout,
        name,
        _num_classes(params),
        size,
        params,
        batch_stats,
        facts,
        file.published,
        tuple(rows),
        num_heads=heads or registered(name).num_heads,
        epsilon=epsilon,
        said=said,
        assumed=assumed,
    )


def _another_size(said: tuple[int, int], size: tuple[int, int]) -> str:
    return (
        f"{CONFIG} says images of {said[0]}x{said[1]} pixels, but the position embeddings are of "
        f"{size[0]}x{size[1]}; it is not of this file."
    )


def _num_classes(params: Tree) -> int:
    flat, kernels = flatten(params), [(*head, "kernel") for head in CLASS_HEADS]
    return next((flat[path].shape[-1] for path in kernels if path in flat and flat[path].ndim), 0)
