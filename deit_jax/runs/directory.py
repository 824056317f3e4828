"""The directory of a run: its configuration, its result, and the lock that guards it."""

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from deit_jax.data.images.names import is_left_behind
from deit_jax.files import is_partial, remove_partials, require_writable, strict_json, write_json
from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.going_on import MAY_CHANGE, same_configuration, same_origin
from deit_jax.runs.made_from import MadeFrom
from deit_jax.runs.read import read_run_record
from deit_jax.runs.record import circumstances

_LOG = logging.getLogger("deit_jax")
_LOCK = ".lock"


@dataclass
class RunDirectory:
    """The open directory of this run; a context manager, which gives up the lock at the end.

    Attributes:
        path: absolute path.
        resumed: whether a run was there already.
    """

    path: Path
    resumed: bool
    _lock: int | None = None
    _noted: bool = False

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints go."""
        return self.path / "checkpoints"

    def note_first_checkpoint(self) -> None:
        """Write down, once, that there is a checkpoint: then its loss will not go unnoticed."""
        if self._noted or self._lock is None or not (steps := saved_steps(self.checkpoints)):
            return
        # Not worth ending a run for; the next call tries again.
        with contextlib.suppress(OSError, ValueError):
            record = read_run_record(self.path)
            write_json(self.path / "config.json", {"first_checkpoint": steps[0], **record})
            self._noted = True

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` completely or not at all; numbers that are not finite become null."""
        write_json(self.path / "result.json", result)

    def close(self) -> None:
        """Let other processes use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(
    workdir: str | Path,
    config: Any,
    *,
    made_from: MadeFrom | None = None,
    allow_config_change: bool = False,
    class_names: Sequence[str] = (),
) -> RunDirectory:
    """Make or reopen the directory of a run, lock it, and write `config.json`.

    In a run of many processes only the first looks and writes; its failure ends them all.

    Args:
        workdir: the directory.
        config: nested configuration, a mapping or an `ml_collections.ConfigDict`.
        made_from: data, teacher, weights and devices, to be recorded and compared.
        allow_config_change: go on although other keys have changed than those of `MAY_CHANGE`, or
            what the run was made from.
        class_names: of the data, for whoever reads the run.

    Raises:
        FileExistsError: it is a file, or holds something that is no run.
        ValueError: it cannot be written to, another process uses it, or the run in it was started
            with another configuration or made from something else.
    """
    path = Path(workdir).absolute()
    if jax.process_index() != 0:
        return RunDirectory(path, (path / "config.json").is_file())
    _refuse_foreign(path)
    run = RunDirectory(path, (path / "config.json").is_file(), _acquire(path))
    written = path
    try:
        remove_partials(path)
        # As it will be when it is read again: tuples are lists.
        facts = {"class_names": list(class_names)} if class_names else {}
        record = json.loads(strict_json({"config": config, **facts, **circumstances()}))
        saved = read_run_record(path) if run.resumed else None
        if saved is not None:
            allowed = ("*",) if allow_config_change else MAY_CHANGE
            record = same_configuration(path, saved, record, allowed)
            record = same_origin(record, made_from, path, allow_config_change)
        elif made_from:
            record["made_from"] = made_from
        run._noted = "first_checkpoint" in record
        if record != saved:
            write_json(path / "config.json", record)
        if run.checkpoints.is_dir():
            written = run.checkpoints
            require_writable(written)
    except OSError as error:
        run.close()
        raise _unwritable(written, error) from error
    except BaseException:
        run.close()
        raise
    return run


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another --workdir.")
    if not path.is_dir():
        return
    if (path / "config.json").is_file():
        read_run_record(path)
        return
    # Ours alone if a start was interrupted before it had written the configuration.
    names = {entry.name for entry in path.iterdir()} - {_LOCK}
    foreign = [name for name in names if not (is_partial(name) or is_left_behind(name))]
    if foreign:
        raise FileExistsError(
            f"{path} is not empty and holds no run (no config.json, but {min(foreign)}); choose "
            "another --workdir."
        )


def _acquire(path: Path) -> int:
    """Make the directory and lock it, until the file descriptor is closed or the process ends."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 200).decode(errors="replace").strip()
        os.close(lock)
        raise ValueError(
            f"Another process{f' ({holder})' if holder else ''} is training in {path}; wait for "
            "it, stop it, or choose another --workdir."
        ) from error
    except OSError as error:
        _LOG.warning("%s cannot be locked (%s): do not start a second run in it.", path, error)
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"Cannot write to {path} ({error.strerror}); choose another --workdir.")
