"""The frozen teacher: read once, folded, never trained and never written to a checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from deit_jax.data.class_mapping import Classes, ClassMapping, match_classes, read_mapping
from deit_jax.data.identity import combine, of_numbers
from deit_jax.models.frozen import freeze
from deit_jax.models.registry import find_model
from deit_jax.preprocessing import Preprocessing
from deit_jax.runs.fingerprint import digest
from deit_jax.runs.open_weights import RunWeights, read_weights
from deit_jax.schema import Config
from deit_jax.schema.networks import TeacherOptions as TeacherKeys
from deit_jax.training.distillation.view import Colour, TeacherView
from deit_jax.trees import Tree
from deit_jax.weights.load import complete_model
from deit_jax.weights.reading import Weights

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

    def record(self) -> dict[str, Any]:
        """Return its facts, and digests of its weights, as read and as folded, and of its view."""
        view = self.function
        shown = (*view.student, *view.teacher, view.image_size)
        return {
            **self.facts,
            "digest": self.digest,
            "folded": digest(self.params),
            "view": combine([repr(shown), of_numbers(view.classes)]),
        }


def load_teacher(config: Config, class_names: Sequence[str] = ()) -> Teacher | None:
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
    weights, size, read = _read(config)
    function, params = freeze(
        weights.model_name,
        *jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), read),
        num_classes=weights.num_classes,
        image_size=size,
        dtype=jnp.dtype(options.dtype),
        **weights.network.options(),
    )
    mapping = _classes(config, weights, class_names)
    view = TeacherView(
        function,
        student=(tuple(config.augment.mean), tuple(config.augment.std)),
        teacher=_colours(config, weights.facts.preprocessing),
        image_size=size,
        classes=mapping.classes,
    )
    step, top1 = _reached(weights)
    facts = {
        "name": weights.model_name,
        "weights": options.weights,
        "step": step,
        "top1": top1,
        "ema": options.ema,
    }
    as_read = dict(zip(("params", "batch_stats"), read, strict=True))
    return Teacher(view, params, facts, digest(as_read), mapping.note)


def _colours(config: Config, own: Preprocessing) -> tuple[Colour, Colour]:
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


def _size(config: Config, name: str, own: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the teacher's images.

    What the configuration says, else the size of its weights for a transformer, whose position
    embeddings are of one size, and the student's for a convnet, as in the reference.
    """
    asked, student = config.teacher.image_size, config.model.image_size
    if asked != (0, 0):
        return asked
    spec = find_model(name)
    if (spec and spec.convnet) or own == student:
        return student
    _LOG.warning(
        "The teacher %s is shown the images at %s pixels, the size of its weights; the student "
        "has %s (config.teacher.image_size says otherwise).",
        config.teacher.weights,
        "x".join(map(str, own)),
        "x".join(map(str, student)),
    )
    return own


def _read(config: Config) -> tuple[Weights, tuple[int, int], tuple[Tree, Tree]]:
    """Return what was read, the size of its images, and its arrays fitted to that size."""
    options = config.teacher
    try:
        weights = read_weights(
            options.weights,
            which="ema" if options.ema else "model",
            checkpoint=int(options.checkpoint)
            if options.checkpoint.isdigit()
            else options.checkpoint,
            model=named_teacher(config),
        )
        size = _size(config, weights.model_name or options.name, weights.image_size)
        _, params, batch_stats = complete_model(weights, size)
    except ValueError as error:
        # It is often the name that is wrong.
        raise ValueError(f"The teacher (config.teacher.name={options.name}): {error}") from error
    if weights.assumed:
        _LOG.warning("The teacher %s: %s", weights.source, weights.assumed)
    return weights, size, (params, batch_stats)


def _reached(weights: Weights) -> tuple[int | None, float | None]:
    """Return the step of a run's checkpoint and the top-1 accuracy that is known, in percent."""
    if isinstance(weights, RunWeights):
        return weights.step, weights.metrics.get("top1")
    return None, weights.published.top1 if weights.published else None


def named_teacher(config: Config) -> str:
    """Return the name that was given, or "" where it is the default, which need not be meant."""
    return "" if config.teacher.name == TeacherKeys().name else config.teacher.name


def _classes(config: Config, weights: Weights, class_names: Sequence[str]) -> ClassMapping:
    """Return the teacher's class for each of the student's."""
    path, key = config.teacher.classes, "config.teacher.classes"
    teacher = Classes(
        f"The teacher {config.teacher.weights!r}", weights.num_classes, weights.facts.labels
    )
    student = Classes("the student", config.model.num_classes, tuple(class_names))
    if path:
        return read_mapping(path, teacher, student, key)
    remedy = (
        "name the teacher's class of each of the student's in a file "
        f"(--{key}=FILE) or use a teacher of the same classes"
    )
    return match_classes(teacher, student, remedy)
