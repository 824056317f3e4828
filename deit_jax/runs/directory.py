"""The directory of a run: its configuration, its result, and the lock that guards it."""

import contextlib
import fcntl
import fnmatch
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deit_jax.config.keys import leaves_by_key
from deit_jax.config.saved import BEFORE, complete, kept
from deit_jax.data.images.names import is_left_behind
from deit_jax.files import is_partial, remove_partials, strict_json, write_json
from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.made_from import MadeFrom, changes
from deit_jax.runs.read import read_run_record
from deit_jax.runs.record import circumstances, config_differences
from deit_jax.schema.networks import TeacherOptions

_LOG = logging.getLogger("deit_jax")
_LOCK = ".lock"
_STEP = "training.batch_size"

MAY_CHANGE = (
    "checkpoint.*",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "evaluation.every_*",
    "log.*",
)
"""Keys that decide when something is read, shown or saved, but not what is computed."""


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
        with contextlib.suppress(OSError):
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
    may_change: Sequence[str] = MAY_CHANGE,
    class_names: Sequence[str] = (),
) -> RunDirectory:
    """Make or reopen the directory of a run, lock it, and write `config.json`.

    In a run of many processes only the first looks and writes; its failure ends them all.

    Args:
        workdir: the directory.
        config: nested configuration, a mapping or an `ml_collections.ConfigDict`.
        made_from: data, teacher, weights and devices, to be recorded and compared.
        allow_config_change: go on although other keys have changed than those of `may_change`, or
            what the run was made from.
        may_change: shell patterns of dotted keys that may differ from the saved ones.
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
    try:
        remove_partials(path)
        # As it will be when it is read again: tuples are lists.
        facts = {"class_names": list(class_names)} if class_names else {}
        record = json.loads(strict_json({"config": config, **facts, **circumstances()}))
        saved = read_run_record(path) if run.resumed else None
        if saved is not None:
            allowed = ("*",) if allow_config_change else may_change
            record = _continue(path, saved, record, allowed)
            record = _go_on_from(record, made_from, path, allow_config_change)
        elif made_from:
            record["made_from"] = made_from
        run._noted = "first_checkpoint" in record
        if record != saved:
            write_json(path / "config.json", record)
    except OSError as error:
        run.close()
        raise _unwritable(path, error) from error
    except BaseException:
        run.close()
        raise
    return run


def config_changes(workdir: str | Path, config: Any) -> dict[str, list[Any]]:
    """Return {key: [saved, given]} of what keeps a configuration from going on with this run.

    Keys of `MAY_CHANGE` are left out, and those in which `as_begun` would follow the run.
    """
    now, record = json.loads(strict_json(config)), read_run_record(workdir)
    saved, _ = complete(record["config"], leaves_by_key(now))
    changed, ours = config_differences(saved, now), (*MAY_CHANGE, *kept(record))
    if now.get("teacher", {}).get("name") == TeacherOptions().name:
        # The run wrote down what the teacher's weights were of.
        changed.pop("teacher.name", None)
    return {key: pair for key, pair in changed.items() if not _allowed(key, ours)}


def as_begun(workdir: str | Path, config: ConfigDict) -> ConfigDict:
    """Return a configuration with the ways that an older run in `workdir` goes on with.

    They are the keys of `saved.BEFORE` that did not exist when the run began.
    """
    path = Path(workdir).absolute()
    if not (path / "config.json").is_file():
        return config
    config = config.copy_and_resolve_references()
    given = leaves_by_key(config)
    for key, value in kept(read_run_record(path)).items():
        if given.get(key, value) != value:
            config.update_from_flattened_dict({key: value})
            _LOG.warning(
                "The run in %s is older than %s and goes on with %s, as it began.", path, key, value
            )
    return config


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


def _continue(
    path: Path, saved: dict[str, Any], now: dict[str, Any], may_change: Sequence[str]
) -> dict[str, Any]:
    """Compare with the saved record; return it brought up to date, or refuse."""
    before, added = complete(saved["config"], leaves_by_key(now["config"]))
    changed = config_differences(before, now["config"])
    refused = [key for key in changed if not _allowed(key, may_change)]
    if refused:
        listed = ", ".join(f"{key}: {_arrow(changed[key])}" for key in refused)
        raise ValueError(
            f"The run in {path} was started with another configuration ({listed}). Use a new "
            "--workdir, the old values, or --allow_config_change to go on all the same."
        )
    if _STEP in changed and saved_steps(path / "checkpoints"):
        raise ValueError(
            f"The run in {path} counts steps of {changed[_STEP][0]} images, and {_STEP} is now "
            f"{changed[_STEP][1]}: epoch, schedule and order of the images would jump, so that is "
            f"not possible in one run. Give the old value, or start a new --workdir from its "
            f"weights (--config.model.weights={path})."
        )
    if added:
        listed = ", ".join(f"{key}={value}" for key, value in added.items())
        _LOG.warning("The run in %s is older than some keys; it goes on with %s.", path, listed)
    for key, values in changed.items():
        _LOG.warning("Going on with a changed configuration: %s: %s.", key, _arrow(values))
    history = saved.get("history", [])
    latest = history[-1] if history else saved
    if changed or any(now[key] != latest.get(key) for key in ("versions", "git_commit")):
        start = {key: value for key, value in now.items() if key not in ("config", "class_names")}
        history = [*history, {"changed": changed, **start}]
    older = {*saved.get("older_than", ()), *(key for key in added if key in BEFORE)}
    return {
        **({"class_names": now["class_names"]} if "class_names" in now else {}),
        **saved,
        "config": now["config"],
        **({"history": history} if history else {}),
        **({"older_than": sorted(older)} if older else {}),
    }


def _go_on_from(
    record: dict[str, Any], now: MadeFrom | None, path: Path, allow_change: bool
) -> dict[str, Any]:
    """Compare what the run was made from; return the record brought up to date, or refuse."""
    if now is None:
        return record
    saved = record.get("made_from")
    if saved is None:
        _LOG.warning(
            "The run in %s is older than the record of what a run was made from: whether data and "
            "teacher are still the same is not known. They are recorded now.",
            path,
        )
        return {**record, "made_from": now}
    found = changes(saved, now)
    if found.refused and not allow_change:
        raise ValueError(
            f"The run in {path} was made from something else ({'; '.join(found.refused)}). Put "
            "that back, use a new --workdir, or --allow_config_change to go on all the same."
        )
    for phrase in found.refused:
        _LOG.warning("Going on although something has changed: %s.", phrase)
    for phrase in found.warned:
        _LOG.warning("Going on with other last bits than before: %s.", phrase)
    # Weights to start from are read only once.
    now = {**now, "initial": now["initial"] or saved.get("initial")}
    phrases = [*found.refused, *found.warned]
    if not phrases:
        return record
    history = [*record.get("history", []), {**circumstances(), "changed": {}, "replaced": phrases}]
    return {**record, "made_from": now, "history": history}


def _allowed(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(key, pattern) for pattern in patterns)


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"Cannot write to {path} ({error.strerror}); choose another --workdir.")


def _arrow(pair: Sequence[Any]) -> str:
    return f"{pair[0]} -> {pair[1]}"
