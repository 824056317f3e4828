"""Every call of Orbax: how one checkpoint is written to and read from its directory.

Layout: `STEP/{params, batch_stats, ema, training, meta}`. The first three can be read without
knowing the optimiser; `training` is the rest of the state; `meta` is the manifest. All arrays lie
in nested dicts with string keys, so that neither optax's nor Flax's classes are part of the format.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from deit_jax.files import write_json
from deit_jax.runs.best import best_first
from deit_jax.runs.checkpoints.manifest import DamagedCheckpoint, Manifest
from deit_jax.runs.checkpoints.meeting import Meeting, MissingPart
from deit_jax.runs.checkpoints.orbax_counters import count_no_bytes
from deit_jax.runs.checkpoints.orbax_loops import let_loops_end, wait_for_threads
from deit_jax.runs.checkpoints.reading_failures import (
    error_in_short,
    fail_together,
    refuse_circumstances,
)
from deit_jax.runs.fingerprint import named_leaves
from deit_jax.trees import nest

_WEIGHT_ITEMS = ("params", "batch_stats", "ema")
_REST = "training"
_TRASH = "trash"
_SYSTEM_ERROR = re.compile(r"\[os_error_code='(\d+)'")
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def _worth_showing(record: logging.LogRecord) -> bool:
    """Keep Orbax from narrating each save, and from logging with tracebacks what it also raises."""
    chatter = "orbax/checkpoint" in record.pathname and record.levelno != logging.WARNING
    return not chatter or absl_logging.get_verbosity() >= absl_logging.DEBUG


logging.getLogger("absl").addFilter(_worth_showing)
let_loops_end()
count_no_bytes()


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the latest, every so many steps, and the best. A policy of Orbax.

    Of those that are not in doubt the latest stays too: training may have to go back to it.

    Orbax's own `BestN` ranks NaN first, and forgets metrics at a restart unless `best_fn` is set.

    Attributes:
        keep_latest: how many of the newest.
        keep_every: all steps divisible by this; 0 for none.
        keep_best: how many of those with the highest score.
        scores: of the steps whose deciding metric is finite.
        in_doubt: steps of which `Manifest.in_doubt`.
    """

    keep_latest: int
    keep_every: int
    keep_best: int
    scores: dict[int, float] = field(default_factory=dict)
    in_doubt: set[int] = field(default_factory=set)

    def note(self, manifest: Manifest) -> None:
        """Take in what decides about a checkpoint."""
        if manifest.score is not None:
            self.scores[manifest.step] = manifest.score
        if manifest.in_doubt:
            self.in_doubt.add(manifest.step)

    def forget(self) -> None:
        """Know of no checkpoint."""
        self.scores.clear()
        self.in_doubt.clear()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Answer for each checkpoint, as Orbax asks."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        scored = best_first({s: self.scores[s] for s in steps if s in self.scores})
        good = [step for step in steps if step not in self.in_doubt]
        kept = {*steps[-self.keep_latest :], *good[-1:], *scored[: self.keep_best]}
        if self.keep_every:
            kept |= {step for step in steps if step % self.keep_every == 0}
        return [checkpoint.step in kept for checkpoint in checkpoints]


class Writer:
    """Writes checkpoints into a directory, one at a time and in the background."""

    def __init__(self, directory: Path, retention: Retention) -> None:
        """Open the directory; it is made if it is missing."""
        self._meeting = Meeting(str(directory))
        many = jax.process_count() > 1
        options = ocp.CheckpointManagerOptions(
            async_options=ocp.AsyncOptions(barrier_sync_fn=self._meeting.wait if many else None),
            preservation_policy=retention,
            # A rename, where deletion could be interrupted and leave half a checkpoint.
            todelete_subdir=_TRASH,
            lightweight_initialize=True,
        )
        self._retention = retention
        self._manager = ocp.CheckpointManager(directory, options=options)

    def start(self, state: Any, manifest: Manifest) -> None:
        """Copy the state off the devices and begin to write it. Not while another is written."""
        trees: dict[str, dict[str, Any]] = {}
        for name, leaf in named_leaves(state).items():
            item, path = _place(name)
            trees.setdefault(item, {})[path] = leaf
        items = {item: ocp.args.StandardSave(_nest(leaves)) for item, leaves in trees.items()}
        arguments = ocp.args.Composite(meta=ocp.args.JsonSave(manifest.to_json()), **items)
        self._retention.note(manifest)
        self._meeting.begin(manifest.step)
        # Forced: which steps are saved is for the caller to say.
        self._manager.save(manifest.step, args=arguments, force=True)

    def finish(self) -> None:
        """Wait until all is on disk and retention has been applied; raises whatever went wrong."""
        try:
            self._manager.wait_until_finished()
        except BaseException as error:
            self._meeting.give_up()
            cause: BaseException = error
            # Orbax meets the others once more when something has gone wrong here.
            while isinstance(cause, MissingPart) and cause.__context__ is not None:
                cause = cause.__context__
            raise cause from None

    def close(self) -> None:
        """Finish, and end the background threads."""
        try:
            self._manager.close()
        finally:
            wait_for_threads()


def is_leftover(path: Path) -> bool:
    """Return whether something in the directory is an unfinished or discarded save."""
    return path.name == _TRASH or ocp.utils.TMP_DIR_SUFFIX in path.name


def read_saved_manifest(path: Path) -> Manifest:
    """Read and verify the manifest of the checkpoint in a directory.

    Raises:
        DamagedCheckpoint: it is missing, unreadable or altered.
        OSError, ValueError: the system or JAX's devices keep it from being read.
    """
    try:
        content = ocp.JsonCheckpointHandler().restore(path / "meta")
    except Exception as error:
        refuse_circumstances(path, error)
        raise DamagedCheckpoint(f"its manifest cannot be read: {error_in_short(error)}") from error
    manifest = Manifest.from_json(content)
    if str(manifest.step) != path.name:
        raise DamagedCheckpoint(f"it was saved as step {manifest.step}")
    return manifest


def replace_manifest(path: Path, manifest: Manifest) -> None:
    """Give the checkpoint in a directory another manifest, completely or not at all."""
    write_json(path / "meta" / "metadata", manifest.to_json())


def read_state(path: Path, manifest: Manifest, abstract_state: Any) -> Any:
    """Read a whole state into the tree, types and shardings of `abstract_state`, and verify it.

    All processes of a run must call this, and all of them succeed or fail.

    Raises:
        DamagedCheckpoint: arrays cannot be read, or are not those that were saved.
        OSError: the system keeps them from being read.
        ValueError: the checkpoint is of another model or optimiser.
    """
    manifest.check_fits(abstract_state, f"Checkpoint {path}")
    arrays: dict[str, Any] = {}
    problem: Exception | None = None
    try:
        arrays = _read(path, named_leaves(abstract_state))
    except (DamagedCheckpoint, OSError) as error:
        problem = error
    # Each process reads its own shards; the fingerprints are computed by all of them together.
    fail_together(problem, "another process cannot read its part")
    manifest.check_values(arrays)
    return jax.tree.unflatten(jax.tree.structure(abstract_state), list(arrays.values()))


def read_saved_weights(path: Path, manifest: Manifest, item: str) -> dict[str, Any]:
    """Read one of params, batch_stats, ema into nested dicts of numpy arrays, and verify it.

    Returns:
        An empty dict if the state had no such arrays.

    Raises:
        DamagedCheckpoint: arrays cannot be read, or are not those that were saved.
    """
    wanted = {
        name: np.broadcast_to(np.zeros((), jax.numpy.dtype(dtype)), shape)
        for name, (dtype, shape, _) in manifest.arrays.items()
        if _place(name)[0] == item
    }
    arrays = _read(path, wanted)
    manifest.check_values(arrays)
    return _nest(arrays).get(item, {})


def why_not_written(error: BaseException) -> str:
    """Say why a save has failed, in few words.

    For a full disk those of the system alone: TensorStore's name files that nobody knows.
    """
    number = error.errno if isinstance(error, OSError) else None
    if found := _SYSTEM_ERROR.search(str(error)):
        number = int(found[1])
    return os.strerror(number) if number in _CANNOT_WRITE else error_in_short(error)


def _read(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Read arrays by their name in the state; as numpy where such are wanted, else as sharded."""
    by_item: dict[str, dict[str, Any]] = {}
    for name, leaf in wanted.items():
        item, place = _place(name)
        by_item.setdefault(item, {})[place] = leaf
    found: dict[str, Any] = {}
    for item, leaves in by_item.items():
        asked = {place: _restore_arguments(leaf) for place, leaf in leaves.items()}
        arguments = ocp.args.PyTreeRestore(item=_nest(leaves), restore_args=_nest(asked))
        try:
            # A Checkpointer around it would wait for all processes, but not for one that failed.
            with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
                tree = handler.restore(path / item, args=arguments)
        except Exception as error:
            refuse_circumstances(path, error)
            raise DamagedCheckpoint(f"{item} cannot be read: {error_in_short(error)}") from error
        prefix = "" if item == _REST else f"{item}/"
        found |= {prefix + place: leaf for place, leaf in named_leaves(tree).items()}
    return {name: found[name] for name in wanted}


def _restore_arguments(leaf: Any) -> ocp.RestoreArgs:
    if isinstance(leaf, np.ndarray):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    if leaf.sharding is None:
        # Without one, Orbax would look for the devices that the checkpoint was saved from.
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaf = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return ocp.checkpoint_utils.construct_restore_args(leaf)


def _place(name: str) -> tuple[str, str]:
    """Return item and path in it of an array, from its path in the state."""
    item, _, path = name.partition("/")
    return (item, path) if item in _WEIGHT_ITEMS and path else (_REST, name)


def _nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Turn {"a/b": x} into {"a": {"b": x}}."""
    return nest({tuple(name.split("/")): leaf for name, leaf in leaves.items()})
