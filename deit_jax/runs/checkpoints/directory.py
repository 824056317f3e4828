"""The directory that holds a run's checkpoints: what is in it, what is set aside, what is removed.

`STEP/` is a checkpoint, `STEP.corrupt` one that was found damaged, `STEP.abandoned` one from which
training has gone back to an earlier one. All else is a leftover.
"""

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from deit_jax.files import require_writable
from deit_jax.runs.best import best_first
from deit_jax.runs.checkpoints.manifest import DamagedCheckpoint, Manifest, finite
from deit_jax.runs.checkpoints.orbax_store import is_leftover, read_saved_manifest, replace_manifest

_LOG = logging.getLogger("deit_jax")

OWES_EVALUATION = "owes_evaluation"
"""Note of a checkpoint that was saved because a signal came while its state was evaluated."""


def saved_steps(directory: Path) -> list[int]:
    """Return the steps that are completely written, oldest first; intact or not."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def read_manifests(directory: Path) -> tuple[dict[int, Manifest], dict[int, str]]:
    """Return the manifests by step, and the reasons why others cannot be read."""
    manifests, unreadable = {}, {}
    for step in saved_steps(directory):
        try:
            manifests[step] = read_saved_manifest(directory / str(step))
        except DamagedCheckpoint as error:
            unreadable[step] = str(error)
    return manifests, unreadable


def add_metrics(directory: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Give a checkpoint that owes its evaluation the metrics, and take the note away, at once.

    Not while something is saved, and before the first save of this process.
    """
    if jax.process_index() == 0:
        path = directory / str(step)
        manifest = read_saved_manifest(path)
        meta = {key: value for key, value in manifest.meta.items() if key != OWES_EVALUATION}
        found = finite(metrics, manifest.metric)
        replace_manifest(path, dataclasses.replace(manifest, metrics=found, meta=meta))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("metrics added")


def best_of(manifests: Mapping[int, Manifest]) -> tuple[int, float] | None:
    """Return the step of the best checkpoint and its score; None if none was scored."""
    scores = {step: m.score for step, m in manifests.items() if m.score is not None}
    return next(((step, scores[step]) for step in best_first(scores)), None)


def select(directory: Path, which: str | int) -> Path:
    """Return the path of the "best" or "latest" checkpoint or of a step.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: none is the best, because none has a finite metric.
    """
    steps = saved_steps(directory)
    if not steps:
        raise FileNotFoundError(f"There is no checkpoint in {directory}.")
    if which == "latest":
        return directory / str(steps[-1])
    if which == "best":
        manifests, unreadable = read_manifests(directory)
        for step, reason in unreadable.items():
            _LOG.warning("Ignored checkpoint %s: %s.", directory / str(step), reason)
        if (best := best_of(manifests)) is None:
            raise ValueError(
                f"No checkpoint in {directory} was evaluated with a finite result, so none is the "
                f"best; choose 'latest' or one of the steps {steps}."
            )
        return directory / str(best[0])
    if which not in steps:
        raise FileNotFoundError(
            f"There is no checkpoint {which!r} in {directory}; choose 'best', 'latest' or one of "
            f"the steps {steps}."
        )
    return directory / str(which)


def damaged_names(directory: Path) -> list[str]:
    """Return the names of the checkpoints that were set aside."""
    return sorted(path.name for path in directory.glob("*.corrupt*"))


def set_aside(directory: Path, reasons: Mapping[int, str], ending: str = "corrupt") -> None:
    """Rename checkpoints so that nothing takes them for good ones, and log why. Deletes nothing.

    Args:
        directory: of the checkpoints.
        reasons: by step. The same on all processes.
        ending: of the new names.
    """
    if jax.process_index() == 0:
        for step, reason in reasons.items():
            target = directory / f"{step}.{ending}"
            while target.exists():
                target = target.with_name(f"{target.name}+")
            (directory / str(step)).rename(target)
            _LOG.error("Set checkpoint %d aside as %s: %s.", step, target, reason)
    if reasons and jax.process_count() > 1:
        multihost_utils.sync_global_devices("checkpoints set aside")


def why_unwritable(directory: Path) -> OSError | None:
    """Return why nothing can be saved here, if so.

    Orbax would find out in one of its threads, and leave others waiting for that one for minutes.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        require_writable(directory)
    except OSError as error:
        return error
    return None


def remove_leftovers(directory: Path) -> None:
    """Delete unfinished saves and what retention has discarded. Not while something is saved."""
    if jax.process_index() == 0 and directory.is_dir():
        for path in filter(is_leftover, directory.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


def free_disk_bytes(directory: Path) -> int:
    """Return how much room there is on the file system that holds, or will hold, a directory."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free
