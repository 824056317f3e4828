"""The frozen teacher: read once, folded, never trained and never written to a checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deit_jax.data.class_mapping import Classes, ClassMapping, match_classes, read_mapping
from deit_jax.models.frozen import freeze
from deit_jax.models.functional import Tree, abstract
from deit_jax.models.registry import model_builder
from deit_jax.preprocessing import Preprocessing
from deit_jax.runs.checkpoints import load_weights
from deit_jax.runs.classes import class_names_of_run
from deit_jax.runs.fingerprint import digest
from deit_jax.runs.read import load_run, run_preprocessing
from deit_jax.schema.networks import Teacher as TeacherKeys
from deit_jax.training.distillation.view import Colour, TeacherView
from deit_jax.weights.convnet_names import convnet_family
from deit_jax.weights.description.network import Network, registered
from deit_jax.weights.fit import Grids, fit
from deit_jax.weights.load import complete_model, grid_of
from deit_jax.weights.reading import is_run, read_weights

_LOG = logging.getLogger("deit_jax")


@dataclass(frozen=True)
class Teacher:
    """A model to ask.

    Attributes:
        function: how it sees the student's images.
        params: folded parameters.
        facts: where they came from, for `result.json`.
        digest: of the weights as they were read. Folding them is arithmetic, whose last bits
            depend on the device.
        note: a sentence about its classes.
    """

    function: TeacherView
    params: Tree
    facts: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Source:
    """What was read: the weights, how they want their images, and facts for the record."""

    name: str
    params: Tree
    batch_stats: Tree
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    network: Network
    facts: dict[str, Any]


def load_teacher(config: ConfigDict, class_names: Sequence[str] = ()) -> Teacher | None:
    """Load the teacher that `config.teacher` describes, or return None without distillation.

    Its weights are a run directory of train.py or anything else that `read_weights` reads, so it
    may be any registered model, and they say which; a name other than the default must be theirs.
    Its BatchNorm is folded into the convolutions.

    Raises:
        FileNotFoundError: there is nothing at `teacher.weights`, or no file `teacher.classes`.
        ValueError: it holds another model, other classes that nothing maps, or is damaged.
    """
    if config.distillation.kind == "none":
        return None
    options = config.teacher
    source = _read_run(config) if is_run(Path(options.weights)) else _read_file(config)
    size = source.image_size
    function, params = freeze(
        source.name,
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), source.params),
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), source.batch_stats),
        num_classes=source.num_classes,
        image_size=size,
        dtype=jnp.dtype(options.dtype),
        **source.network.options(),
    )
    mapping = _classes(config, source, class_names)
    view = TeacherView(
        function,
        student=(tuple(config.augment.mean), tuple(config.augment.std)),
        teacher=_colours(config, source.preprocessing),
        image_size=size,
        classes=mapping.classes,
    )
    facts = {"name": source.name, "weights": options.weights, **source.facts, "ema": options.ema}
    read = {"params": source.params, "batch_stats": source.batch_stats}
    return Teacher(view, params, facts, digest(read), mapping.note)


def _colours(config: ConfigDict, own: Preprocessing) -> tuple[Colour, Colour]:
    """Return mean and deviation: what the configuration says, else what the weights do."""
    mean, std = tuple(config.teacher.mean), tuple(config.teacher.std)
    if not (mean and std):
        own.require()
        if "normalisation" in own.assumed:
            _LOG.warning(
                "Nothing says how images for the teacher %s are normalised; assumed: mean %s, "
                "standard deviation %s (config.teacher.mean and std say otherwise).",
                config.teacher.weights,
                mean or own.mean,
                std or own.std,
            )
    return mean or own.mean, std or own.std


def _size(config: ConfigDict, name: str, own: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the teacher's images.

    What the configuration says, else the size of its weights for a transformer, whose position
    embeddings are of one size, and the student's for a convnet, as in the reference.
    """
    asked, student = tuple(config.teacher.image_size), tuple(config.model.image_size)
    if asked != (0, 0):
        return asked
    if convnet_family(name) or own == student:
        return student
    _LOG.warning(
        "The teacher %s is shown the images at %s pixels, the size of its weights; the student "
        "has %s (config.teacher.image_size says otherwise).",
        config.teacher.weights,
        "x".join(map(str, own)),
        "x".join(map(str, student)),
    )
    return own


def _read_run(config: ConfigDict) -> _Source:
    options = config.teacher
    trained = load_run(options.weights).config
    model = trained["model"]
    if _named(config) not in ("", model["name"]):
        raise ValueError(
            f"The teacher run {options.weights!r} trained {model['name']}, but "
            f"config.teacher.name is {options.name}; pass --config.teacher.name={model['name']} "
            "or other weights."
        )
    which = int(options.checkpoint) if options.checkpoint.isdigit() else options.checkpoint
    params, batch_stats, meta = load_weights(
        f"{options.weights}/checkpoints", which, "ema" if options.ema else "params"
    )
    facts = {"step": meta["step"], "top1": (meta["metrics"] or {}).get("top1")}
    own = (int(model["image_size"][0]), int(model["image_size"][1]))
    size = _size(config, model["name"], own)
    network = registered(model["name"], model.get("num_heads", 0))
    build = model_builder(
        model["name"], num_classes=model["num_classes"], image_size=size, **network.options()
    )
    _, *target = abstract(build)
    grids = Grids(grid_of(params, own), grid_of(target[0], size))
    fitted = fit((params, batch_stats), (target[0], target[1]), grids, source=options.weights)
    return _Source(
        model["name"],
        fitted.params,
        fitted.batch_stats,
        model["num_classes"],
        class_names_of_run(options.weights, trained, meta),
        size,
        run_preprocessing(trained),
        network,
        facts,
    )


def _read_file(config: ConfigDict) -> _Source:
    """Read published or converted weights; a transformer's positions are fitted to its size."""
    options = config.teacher
    which = "ema" if options.ema else "model"
    try:
        weights = read_weights(options.weights, which=which, model=_named(config))
        size = _size(config, weights.model_name or options.name, weights.image_size)
        _, params, batch_stats = complete_model(weights, size)
    except ValueError as error:
        # It is often the name that is wrong.
        raise ValueError(f"The teacher (config.teacher.name={options.name}): {error}") from error
    if weights.assumed:
        _LOG.warning("The teacher %s: %s", weights.source, weights.assumed)
    facts = {"step": None, "top1": weights.published.top1 if weights.published else None}
    shown = weights.facts.preprocessing
    return _Source(
        weights.model_name,
        params,
        batch_stats,
        weights.num_classes,
        weights.facts.labels,
        size,
        shown,
        weights.network,
        facts,
    )


def _named(config: ConfigDict) -> str:
    """Return the name that was given, or "" where it is the default, which need not be meant."""
    return "" if config.teacher.name == TeacherKeys().name else config.teacher.name


def _classes(config: ConfigDict, source: _Source, class_names: Sequence[str]) -> ClassMapping:
    """Return the teacher's class for each of the student's."""
    path, key = config.teacher.classes, "config.teacher.classes"
    teacher = Classes(
        f"The teacher {config.teacher.weights!r}", source.num_classes, source.class_names
    )
    student = Classes("the student", config.model.num_classes, tuple(class_names))
    if path:
        return read_mapping(path, teacher, student, key)
    remedy = (
        "name the teacher's class of each of the student's in a file "
        f"(--{key}=FILE) or use a teacher of the same classes"
    )
    return match_classes(teacher, student, remedy)
