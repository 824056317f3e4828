"""Opening the labels of a stream: whose they are, which are there, whether a teacher is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from jax.experimental import multihost_utils

from deit_jax.data.identity import combine, of_numbers
from deit_jax.data.source import Source
from deit_jax.files import sentence
from deit_jax.runs.open_weights import weights_identity
from deit_jax.runs.processes import from_first
from deit_jax.schema import Config
from deit_jax.training.distillation.label_store import LabelStore
from deit_jax.training.distillation.label_stream import LabelStream, read_stream, refuse_other
from deit_jax.training.distillation.labels import Kept
from deit_jax.training.distillation.teacher import Teacher, load_teacher, named_teacher

# Of the keys of the data, those that its identity does not tell.
_DATA_KEYS: Final = (
    "repeats",
    "spread_copies",
    "crop",
    "crop_scale",
    "crop_ratio",
    "interpolation",
)
_TEACHER: Final = "the teacher's "


@dataclass(frozen=True)
class OpenLabels:
    """The labels of a stretch of a stream.

    Attributes:
        store: where they are.
        kept: what is kept of each answer.
        teacher: loaded where some are missing; else None.
        taught_by: what is recorded of the teacher that gives, or gave, them: `Teacher.record`.
        missing: which steps of the stretch have none.
    """

    store: LabelStore
    kept: Kept
    teacher: Teacher | None
    taught_by: dict[str, Any]
    missing: np.ndarray


def open_labels(
    config: Config, source: Source, identity: Mapping[str, Any], steps: range
) -> OpenLabels:
    """Open `config.teacher.labels`, and load the teacher where labels of some steps are missing.

    Nothing is written yet. A teacher whose files are those that gave the labels is known without
    being loaded; so is one that is no longer there, if the configuration names it, or none.

    Args:
        config: of the run.
        source: its training images.
        identity: `data.identity.identity_of` the source.
        steps: which will be taken.

    Raises:
        ValueError, FileNotFoundError: the labels are of another stream, or labels and teacher are
            missing.
    """
    directory, kept = Path(config.teacher.labels), Kept.of(config)
    found, files = read_stream(directory), _files(config)
    known = found is not None and _is_known(config, found, files, directory)
    teacher = None if known else _load(config, source, "")
    if known and found is not None:
        record = dict(found.teacher)
        shown = {key: v for key, v in found.keys.items() if key.startswith(_TEACHER)}
    else:
        assert teacher is not None
        record = {**teacher.record(), "files": files, "asked": _asked(config)}
        shown = _shown(teacher)
    stream = LabelStream(_keys(config, kept, identity) | shown, record)
    store = _open(directory, stream, kept.shapes(config.training.batch_size))
    # Without a teacher nothing could take the place of what is found damaged on the way.
    there = np.zeros(len(steps), bool)
    if jax.process_index() == 0:
        there = store.present(steps.start, steps.stop, verify=files is None)
    missing = np.flatnonzero(~np.asarray(from_first(there))) + steps.start
    if len(missing) and teacher is None:
        why = f"{len(missing):,} of {len(steps):,} steps have no teacher's labels in {directory}"
        teacher = _load(config, source, f"{why}, and the teacher cannot be asked: ")
    record["weights"] = config.teacher.weights or record["weights"]
    return OpenLabels(store, kept, teacher, record, missing)


def reload_teacher(config: Config, source: Source, directory: Path) -> Teacher:
    """Load a teacher that was thought not to be needed.

    Raises:
        ValueError: it is not there.
    """
    why = f"Labels in {directory} have gone, or are damaged, and the teacher cannot be asked: "
    return _load(config, source, why)


def _open(directory: Path, stream: LabelStream, shapes: Any) -> LabelStore:
    """Open them on the first process before the others, which could find them half begun."""
    if jax.process_index() == 0:
        store = LabelStore(directory, stream, shapes)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("labels opened")
    if jax.process_index() != 0:
        store = LabelStore(directory, stream, shapes)
    return store


def _keys(config: Config, kept: Kept, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return all but the teacher that its answer to a row of a batch follows from, by name."""
    keys: dict[str, Any] = {
        "seed": config.seed,
        "training.batch_size": config.training.batch_size,
        "model.image_size": config.model.image_size,
        "model.num_classes": kept.classes,
        "distillation.kind": kept.kind,
        "teacher.labels_top": kept.top,
        "teacher.dtype": config.teacher.dtype,
    }
    if kept.top:
        keys["distillation.temperature"] = kept.temperature
    keys |= {f"data.{key}": getattr(config.data, key) for key in _DATA_KEYS}
    for group in ("augment", "mix"):
        keys |= {f"{group}.{key}": value for key, value in vars(getattr(config, group)).items()}
    return keys | {f"the data's {name}": value for name, value in identity.items()}


def _shown(teacher: Teacher) -> dict[str, Any]:
    """Return what a teacher's answer follows from: its weights, and what it is shown."""
    view = teacher.function
    return {
        f"{_TEACHER}weights": teacher.digest,
        f"{_TEACHER}mean": view.teacher[0],
        f"{_TEACHER}std": view.teacher[1],
        f"{_TEACHER}image_size": view.image_size,
        f"{_TEACHER}classes": of_numbers(view.classes),
    }


def _is_known(config: Config, found: LabelStream, files: str | None, directory: Path) -> bool:
    """Return whether the teacher is the one that gave the labels, as far as is seen unloaded."""
    name, gave = named_teacher(config), found.teacher
    if files is not None:
        same_name = name in ("", gave["name"])
        return same_name and files == gave["files"] and _asked(config) == gave["asked"]
    if config.teacher.weights not in ("", gave["weights"]):
        raise FileNotFoundError(
            f"config.teacher.weights is {config.teacher.weights!r}, which cannot be read; the "
            f"labels in {directory} are of {gave['weights']!r}: name that, or none, to take them."
        )
    refuse_other(directory, "teacher.name", gave["name"], name or gave["name"])
    for key, value in _asked(config).items():
        refuse_other(directory, key, gave["asked"].get(key), value)
    return True


def _asked(config: Config) -> dict[str, Any]:
    """Return what the configuration says of the teacher beside its weights, as JSON has it."""
    teacher = config.teacher
    classes = Path(teacher.classes)
    return {
        "teacher.checkpoint": teacher.checkpoint,
        "teacher.ema": teacher.ema,
        "teacher.mean": list(teacher.mean),
        "teacher.std": list(teacher.std),
        "teacher.image_size": list(teacher.image_size),
        "teacher.classes": combine([classes.read_bytes()]) if classes.is_file() else "",
    }


def _files(config: Config) -> str | None:
    """Return what tells the teacher's files from others; None where they are not to be read."""
    options = config.teacher
    if not options.weights:
        return None
    try:
        which = "ema" if options.ema else "model"
        named = options.checkpoint
        checkpoint = int(named) if named.isdigit() else named
        return weights_identity(options.weights, which, checkpoint)
    except (OSError, ValueError, ModuleNotFoundError):
        return None


def _load(config: Config, source: Source, why: str) -> Teacher:
    try:
        if not config.teacher.weights:
            raise FileNotFoundError("config.teacher.weights is empty.")
        teacher = load_teacher(config, source.class_names)
    except (OSError, ValueError) as error:
        if not why:
            raise
        raise ValueError(why + sentence(error)) from error
    assert teacher is not None
    return teacher
