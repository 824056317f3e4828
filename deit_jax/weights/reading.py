"""Reading weights of any known kind: what kind, and what model they are of, is seen from them."""

import os
from dataclasses import dataclass
from pathlib import Path

from deit_jax.models.functional import Tree, abstract
from deit_jax.models.layers import LAYER_NORM_EPSILON
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.trees import flatten
from deit_jax.weights.description.config import CONFIG, NOTHING, Description, describe
from deit_jax.weights.description.facts import Facts, facts_of_file
from deit_jax.weights.description.network import Network, registered
from deit_jax.weights.description.published import PublishedFile
from deit_jax.weights.formats.any import WeightFile, read_file
from deit_jax.weights.formats.hub import locate
from deit_jax.weights.identify import (
    assumed_transformer,
    is_transformer,
    name_convnet,
    name_transformer,
    transformer_image_size,
    transformer_network,
)
from deit_jax.weights.names import detect_layout, from_foreign
from deit_jax.weights.report import Row

# Where the last array of a head lies: transformers, RegNetY, ResNet, EfficientNet.
_HEADS = (("head", "kernel"), ("head", "fc", "kernel"), ("fc", "kernel"), ("classifier", "kernel"))


@dataclass(frozen=True)
class Weights:
    """Weights as they were read, in our names and axis order.

    Attributes:
        source: where they are from, for messages.
        layout: "timm" (the reference's too), "transformers", "torchvision" or "deit_jax".
        model_name: registered name; "" for a transformer of sizes that are not registered.
        num_classes: of each head; 0 for a backbone without head.
        image_size: (height, width) in pixels.
        params: arrays of the types in the file. A transformer read from a class of transformers
            without second head has a `dist_token` but no `head_dist`.
        batch_stats: BatchNorm statistics, {} for transformers.
        facts: preprocessing, names of the classes.
        published: which file of the authors of DeiT it is, if it is one.
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
        about = self.facts.preprocessing.note
        read = f"Read as {kind}, in the layout of {self.layout}."
        return (read, *filter(None, [self.assumed]), *self.facts.notes, *filter(None, [about]))


def read_weights(
    path: str | os.PathLike[str],
    *,
    which: str = "model",
    model: str = "",
    checkpoint: str | int = "best",
    download: bool = False,
    like: str = "",
) -> Weights:
    """Read weights of any known kind; what kind is seen from the content.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file of the reference, timm, transformers,
            torchvision or of ours; a directory with such a file; a run directory of train.py or
            one of its checkpoints; or the name of a Hugging Face repository in the local cache.
        which: "model", or "ema" for the moving average in a training checkpoint.
        model: registered name, where it is not to be recognised from names and shapes.
        checkpoint: of a run directory: "best", "latest" or a step.
        download: fetch a repository that is not in the cache.
        like: registered name of a model that shall take them, by which networks of the same
            tensors are told apart where the file does not name its own.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is damaged, not known, or not of the model that was named. Whether it is
            complete is seen when it is fitted to a model.
    """
    where = locate(os.path.expanduser(os.fspath(path)), download=download)
    run = _run_of(where, checkpoint)
    if not run:
        _refuse_checkpoint(where)
    weights = _read_run(*run, which) if run else _interpret(read_file(where, which), model, like)
    if model and weights.model_name != model:
        raise ValueError(
            f"{weights.source} holds {weights.model_name or 'another architecture'}, not {model}."
        )
    return weights


def _interpret(file: WeightFile, model: str, like: str) -> Weights:
    """Translate a file's tensors, and say what model they are of."""
    facts = facts_of_file(file)
    layout = detect_layout(file.tensors)
    said = describe(file, model)
    heads, epsilon, assumed = 0, LAYER_NORM_EPSILON, ""
    try:
        if is_transformer(file.tensors):
            params, batch_stats, extra = from_foreign(file.tensors, layout)
            heads, epsilon = transformer_network(params, said)
            size = transformer_image_size(params, facts)
            name = name_transformer(params, size, facts.of(model or facts.model, size))
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


def is_run(path: Path) -> bool:
    """Whether it is the directory of a run of train.py that has checkpoints."""
    return (path / "checkpoints").is_dir() and (path / "config.json").is_file()


def _run_of(path: Path, checkpoint: str | int) -> tuple[Path, str | int] | None:
    """Return run directory and checkpoint, if the path is of a run of train.py or inside of one."""
    if path.parent.name == "checkpoints" and path.name.isdigit():
        path, checkpoint = path.parent.parent, int(path.name)
    elif path.name == "checkpoints":
        path = path.parent
    return (path, checkpoint) if is_run(path) else None


def _refuse_checkpoint(path: Path) -> None:
    """Say what is missing where checkpoints lie without their run."""

    def is_step(directory: Path) -> bool:
        return (directory / "meta").is_dir() and (directory / "params").is_dir()

    steps = path.is_dir() and any(p.name.isdigit() and is_step(p) for p in path.iterdir())
    if steps or is_step(path):
        what = "checkpoints" if steps else "one checkpoint"
        raise ValueError(
            f"{path} holds {what} of a run of train.py without the run's config.json, which says "
            "what model they are of; give the run's directory, or copy its config.json and "
            "checkpoints/ together."
        )


def _read_run(run: Path, checkpoint: str | int, which: str) -> Weights:
    # Imported here, since training lies above weights: it loads them into new runs.
    from deit_jax.runs.checkpoints import load_weights as read_checkpoint
    from deit_jax.runs.classes import class_names_of_run
    from deit_jax.runs.read import load_run, run_preprocessing

    if which not in ("model", "ema"):
        raise ValueError(f"There are no {which!r} weights; choose model or ema.")
    config = load_run(run).config
    params, batch_stats, meta = read_checkpoint(
        run / "checkpoints", checkpoint, "params" if which == "model" else "ema"
    )
    model = config["model"]
    size = (int(model["image_size"][0]), int(model["image_size"][1]))
    network = registered(model["name"], model.get("num_heads", 0))
    facts = Facts(
        model["name"],
        size,
        run_preprocessing(config),
        class_names_of_run(run, config, meta),
        notes=(f"Step {meta['step']:,} of the run, {which} weights.",),
    )
    return Weights(
        str(run),
        "deit_jax",
        model["name"],
        model["num_classes"],
        size,
        params,
        batch_stats,
        facts,
        num_heads=network.num_heads,
        said=Description("deit_jax", CONFIG, model["name"]),
    )


def _num_classes(params: Tree) -> int:
    flat = flatten(params)
    return next((flat[path].shape[-1] for path in _HEADS if path in flat), 0)
