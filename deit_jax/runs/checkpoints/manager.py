"""The checkpoints of a run: atomic, verified, and never deleted because they are damaged."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from deit_jax.files import require_utf8
from deit_jax.runs.checkpoints import directory as on_disk
from deit_jax.runs.checkpoints import orbax_store
from deit_jax.runs.checkpoints.manifest import (
    DamagedCheckpoint,
    Manifest,
    check_storable,
    describe_arrays,
    finite,
)
from deit_jax.runs.checkpoints.reading_failures import fail_together
from deit_jax.runs.processes import all_processes, all_see

_LOG = logging.getLogger("deit_jax")
_MAX_FAILURES = 3


@dataclass(frozen=True)
class Restored:
    """A state read back, the step it belongs to, and the notes saved with it."""

    step: int
    state: dict[str, Any]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run; a context manager, which commits the last save on the way out.

    Saving is asynchronous and atomic: a step exists completely or not at all, however the process
    ends. All processes of a run must make the same calls; the directory must be shared by them.

    Attributes:
        failed_saves: how many checkpoints could not be written so far.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_latest: int = 2,
        keep_every: int = 0,
        keep_best: int = 1,
        best_metric: str = "top1",
    ) -> None:
        """Say what is to be kept; nothing is touched before `__enter__`.

        Args:
            directory: where the steps go; made at the first save.
            keep_latest: how many of the newest are kept, at least 1.
            keep_every: keep every step divisible by this for good; 0 keeps none.
            keep_best: how many of those with the highest finite `best_metric` are kept.
            best_metric: name of the deciding one among the metrics given to `save`.
        """
        if keep_latest < 1 or keep_every < 0 or keep_best < 0:
            raise ValueError(
                "keep_latest must be at least 1, keep_every and keep_best at least 0; "
                f"they are {keep_latest}, {keep_every} and {keep_best}."
            )
        self.directory = Path(directory).absolute()
        require_utf8(self.directory)
        self._metric = best_metric
        self._retention = orbax_store.Retention(keep_latest, keep_every, keep_best)
        self._writer: orbax_store.Writer | None = None
        self._pending: int | None = None
        self._failures = 0
        self._failure = ""
        self.failed_saves = 0

    def __enter__(self) -> "Checkpoints":
        on_disk.remove_leftovers(self.directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        alone = jax.process_count() == 1 or getattr(error, "of_all_processes", False)
        if kind is not None and not alone:
            # The others are not here to agree on anything; what has failed ends them.
            return
        try:
            self.wait()
        except OSError:
            if kind is None:
                raise
        finally:
            self._close()
        if self._failures and kind is None:
            raise OSError(f"The last checkpoint was not saved: {self._failure}.")

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Start writing a checkpoint, once the previous one is on disk.

        The arrays may be donated as soon as this returns. A step that is there already is left as
        it is. A failed write (of a full disk, say) is logged and tried again with the next save.

        Args:
            step: how many steps the state has seen.
            state: nested dicts, optax states too, of `jax.Array`. Keys: params, batch_stats, ema
                ({"params", "batch_stats"} or {}), and anything else.
            meta: whatever JSON can hold.
            metrics: measured on this state; must contain `best_metric`, which may be NaN.

        Returns:
            Whether writing was started.

        Raises:
            ValueError: newer checkpoints exist, an array is empty, or `best_metric` is missing.
            TypeError: a leaf is no `jax.Array`, or has elements of 64 bits.
            OSError: three writes in a row have failed.
        """
        self.wait()
        steps = on_disk.saved_steps(self.directory)
        if step in steps:
            return False
        if steps and step < steps[-1]:
            raise ValueError(
                f"{self.directory} holds step {steps[-1]}, so step {step} cannot be saved to it; "
                "continue from its newest checkpoint or use a new --workdir."
            )
        check_storable(state)
        kept_metrics = finite(metrics, self._metric)
        manifest = Manifest(step, describe_arrays(state), self._metric, kept_metrics, dict(meta))
        error: Exception | None = on_disk.why_unwritable(self.directory)
        if all_processes(error is None):
            try:
                self._open().start(state, manifest)
            except Exception as caught:
                error = caught
        if not all_processes(error is None):
            self._note_failure(step, error)
            return False
        self._pending = step
        return True

    def wait(self) -> bool:
        """Wait until nothing is being written; return whether the last save is on disk.

        Raises:
            OSError: three writes in a row have failed.
        """
        if self._pending is not None:
            step, self._pending = self._pending, None
            error: Exception | None = None
            try:
                self._open().finish()
            except Exception as caught:
                error = caught
            if all_processes(error is None):
                self._failures = 0
                on_disk.remove_leftovers(self.directory)
            else:
                self._note_failure(step, error)
        return not self._failures

    def best(self) -> tuple[int, float] | None:
        """Return step and metric of the best checkpoint on disk, or None if none has a metric."""
        self.wait()
        return on_disk.best_of(on_disk.read_manifests(self.directory)[0])

    def steps(self) -> list[int]:
        """Return the steps on disk, oldest first; the same on all processes, which must all ask."""
        self.wait()
        return all_see(on_disk.saved_steps(self.directory))

    def abandon_after(self, step: int) -> None:
        """Set all newer checkpoints aside as `STEP.abandoned`: training goes on from this step."""
        newer = [later for later in self.steps() if later > step]
        # It remembers what there was.
        self._close()
        reason = f"training has gone back to step {step}"
        # The newest first: killed in between, a run goes on from the next newest.
        on_disk.set_aside(self.directory, dict.fromkeys(reversed(newer), reason), "abandoned")

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """Return the newest checkpoint that is intact, or None if there never was one.

        Newer ones that are damaged are set aside as `STEP.corrupt`, with the reason in the log,
        but only once an older one has proved good: what damages all of them is likely something
        else, such as a missing mount.

        Args:
            abstract_state: `jax.ShapeDtypeStruct`s, with the shardings wanted.

        Raises:
            ValueError: there are checkpoints but none is intact; or the newest intact one is of
                another model or optimiser, whose first differing arrays are named.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            path = self.directory / str(step)
            try:
                restored = self._read(path, abstract_state)
            except DamagedCheckpoint as error:
                damaged[step] = str(error)
                _LOG.error("Checkpoint %s is damaged: %s.", path, error)
            else:
                on_disk.set_aside(self.directory, damaged)
                return restored
        aside = on_disk.damaged_names(self.directory)
        if not damaged and not aside:
            return None
        reasons = [f"{step}: {reason}" for step, reason in damaged.items()] + aside
        raise ValueError(
            f"No checkpoint in {self.directory} is intact ({'; '.join(reasons)}). Put back a copy "
            "of one, or start from scratch in a new --workdir."
        )

    def _read(self, path: Path, abstract_state: Any) -> Restored:
        """Read one checkpoint; all processes succeed or fail."""
        manifest: Manifest | None = None
        problem: Exception | None = None
        try:
            manifest = orbax_store.read_saved_manifest(path)
        except (DamagedCheckpoint, OSError) as error:
            problem = error
        fail_together(problem, "another process cannot read its manifest")
        assert manifest is not None
        state = orbax_store.read_state(path, manifest, abstract_state)
        return Restored(manifest.step, state, manifest.meta)

    def _open(self) -> orbax_store.Writer:
        """Open the directory for writing, at the first save: who only reads changes nothing."""
        if self._writer is None:
            on_disk.remove_leftovers(self.directory)
            manifests, unreadable = on_disk.read_manifests(self.directory)
            # Retention would take one without manifest for one without metric, and delete it.
            on_disk.set_aside(self.directory, unreadable)
            self._retention.forget()
            for manifest in manifests.values():
                self._retention.note(manifest)
            self._writer = orbax_store.Writer(self.directory, self._retention)
        return self._writer

    def _close(self) -> None:
        """Let go of the writer, and of an error that it has reported before."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception:
            if not self._failures:
                raise

    def _note_failure(self, step: int, error: Exception | None) -> None:
        reason = orbax_store.why_not_written(error) if error else "another process failed"
        # Orbax may report a consequence of a full disk instead of the full disk.
        free = f"{on_disk.free_disk_bytes(self.directory) / 1e6:,.0f} MB are free there"
        self._failures += 1
        self._failure = f"{self.directory / str(step)}: {reason} ({free})"
        self.failed_saves += 1
        if error or jax.process_index() == 0:
            _LOG.warning("A checkpoint was not saved: %s. Training goes on.", self._failure)
        # A new writer for the next save: this one might repeat its error then.
        self._close()
        on_disk.remove_leftovers(self.directory)
        if self._failures >= _MAX_FAILURES:
            raise OSError(
                f"{self._failures} checkpoints in a row were not saved, last {self._failure}. "
                "Make room or repair the disk, then give the same command again."
            ) from error
