"""What is evaluated: the checkpoint of a run or a file of weights, and the images it is shown."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from deit_jax.data.class_mapping import (
    SAME_CLASSES,
    Classes,
    ClassMapping,
    match_classes,
    read_mapping,
)
from deit_jax.data.combined import keep_classes
from deit_jax.data.open import open_source
from deit_jax.data.source import Source
from deit_jax.data.stream.loader import EvalInput, eval_batches
from deit_jax.evaluation.metrics import Answers, Metrics, measure
from deit_jax.models.functional import ModelFunction
from deit_jax.preprocessing import Preprocessing
from deit_jax.runs.open_weights import RunWeights, read_weights
from deit_jax.sharding import create_mesh
from deit_jax.trees import Tree
from deit_jax.weights.load import complete_model
from deit_jax.weights.reading import Weights


class Place(NamedTuple):
    """A split of a data set, as `open_source` takes it; `classes` are kept, 0 for all."""

    source: str
    directory: str
    split: str
    classes: int = 0


@dataclass(frozen=True)
class Subject:
    """A model with its weights, and how it wants its images.

    Attributes:
        path: of the run, or what the weights were read from.
        model: registered name.
        which: "raw" or "ema".
        function, params, batch_stats: the model.
        num_classes: of each head.
        class_names: of the classes; () if they are not known.
        image_size: (height, width) in pixels.
        preprocessing: of the images.
        fusion: how both heads are put together.
        batch_size: of the evaluation.
        step: of a run's checkpoint; 0 for files.
        place: the split that a run evaluates; None for files.
        facts: sentences about weights from a file.
    """

    path: str
    model: str
    which: str
    function: ModelFunction
    params: Tree
    batch_stats: Tree
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    fusion: str = "mean_logits"
    batch_size: int = 128
    step: int = 0
    place: Place | None = None
    facts: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Short name for tables."""
        return Path(self.path).stem if Path(self.path).is_file() else Path(self.path).name


def read_subject(
    path: str, *, which: str = "", checkpoint: str | int = "best", model: str = ""
) -> Subject:
    """Read a run directory of train.py, or any weights that `read_weights` reads.

    Args:
        path: of either.
        which: "raw" or "ema"; "" is what a run's configuration evaluates, and raw for files.
        checkpoint: of a run: "best", "latest" or a step.
        model: registered name, where weights do not show it.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it cannot be read, or is not complete.
    """
    weights = read_weights(
        path, which="model" if which == "raw" else which, checkpoint=checkpoint, model=model
    )
    run = weights if isinstance(weights, RunWeights) else None
    if run and run.which == "ema":
        which = "ema"
    types: dict[str, Any] = {
        key: jnp.dtype(run.config["model"][key] if run else "float32")
        for key in ("dtype", "residual_dtype")
    }
    function, params, batch_stats = complete_model(weights, **types)
    subject = Subject(
        path,
        weights.model_name,
        which or "raw",
        function,
        params,
        batch_stats,
        weights.num_classes,
        weights.facts.labels,
        weights.image_size,
        weights.facts.preprocessing,
    )
    if run is None:
        return replace(subject, facts=weights.notes)
    evaluation = run.config["evaluation"]
    return replace(
        subject,
        fusion=evaluation["fusion"],
        batch_size=evaluation["batch_size"],
        step=run.step,
        place=place_of(run),
    )


def place_of(weights: Weights) -> Place | None:
    """Return the split that a run evaluates; None for weights from a file."""
    if not isinstance(weights, RunWeights):
        return None
    data = weights.config["data"]
    return Place(data["source"], data["directory"], data["eval_split"], data["classes"])


def choose_place(
    own: Place | None, path: str, *, source: str = "", directory: str = "", split: str = ""
) -> Place:
    """Return the split to evaluate: what was asked for, and the run's own where nothing was.

    Args:
        own: from `place_of`.
        path: of the run or weights, for the error.
        source: kind of the data, "" where nothing was asked for.
        directory: likewise.
        split: likewise.

    Raises:
        ValueError: for weights from a file, whose data has to be said.
    """
    own = own or Place("folder" if directory else "", "", "")
    place = own._replace(
        source=source or own.source, directory=directory or own.directory, split=split or own.split
    )
    if not place.source or not place.split:
        raise ValueError(
            f"{path} does not say what images to evaluate; give --source, --directory and "
            "--split, such as --source folder --directory IMAGENET --split val."
        )
    return place


def open_place(place: Place) -> Source:
    """Open a split, of which only some classes may be kept."""
    return keep_classes(open_source(place.source, place.split, place.directory), place.classes)


def map_classes(subject: Subject, source: Source, path: str = "") -> ClassMapping:
    """Find the subject's class for each of the source's: by their names, or as a file says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the subject has other classes, or the file does not hold what it must.
    """
    model = Classes(subject.path, subject.num_classes, subject.class_names)
    data = Classes(source.name, source.num_classes, source.class_names)
    if path:
        return read_mapping(path, model, data, "--class-map")
    return match_classes(
        model, data, "evaluate it on the data it was trained for, or map classes with --class-map"
    )


def measure_on(
    subject: Subject,
    source: Source,
    *,
    fusion: str,
    batch_size: int,
    crop_ratio: float | None = None,
    mapping: ClassMapping = SAME_CLASSES,
) -> tuple[Metrics, dict[str, Answers]]:
    """Return metrics and answers of each head on all images of a source.

    Args:
        subject: the model.
        source: labelled images.
        fusion: how both heads are put together.
        batch_size: images at a time.
        crop_ratio: share of the resized side that is kept; what the subject wants if None.
        mapping: of its classes to the source's, from `map_classes`.

    Raises:
        ValueError: there is no image, or images cannot be prepared as its weights want them.
    """
    shown = subject.preprocessing.require().keeping(crop_ratio)
    mesh = create_mesh()
    options = EvalInput(
        image_size=subject.image_size,
        # The devices here may be others than those of the run.
        batch_size=-(-batch_size // mesh.size) * mesh.size,
        view=shown.view,
    )
    with contextlib.closing(eval_batches(source, options)) as batches:
        return measure(
            subject.function,
            (subject.params, subject.batch_stats),
            batches,
            mesh,
            len(source),
            mean=shown.mean,
            std=shown.std,
            fusion=fusion,
            classes=mapping.classes,
        )
