"""Whether a run goes on as it began: what is saved of it is compared, updated, or refused."""

import fnmatch
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from deit_jax.config.keys import leaves_by_key
from deit_jax.config.saved import BEFORE, complete, kept
from deit_jax.files import strict_json
from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.made_from import MadeFrom, changes
from deit_jax.runs.read import read_run_record
from deit_jax.runs.record import circumstances, config_differences
from deit_jax.schema.networks import TeacherOptions

_LOG = logging.getLogger("deit_jax")
_STEP = "training.batch_size"

MAY_CHANGE = (
    "checkpoint.*",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "evaluation.every_*",
    "log.*",
    "mesh.*",
    "teacher.labels",
    "training.remat",
    "training.roll_backs",
)
"""Keys that decide when something is read, shown or saved, or how, but not what, is computed."""


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
    if now.get("model", {}).get("num_classes") == 0:
        # Likewise how many the data had.
        changed.pop("model.num_classes", None)
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


def same_configuration(
    path: Path, saved: dict[str, Any], now: dict[str, Any], may_change: Sequence[str]
) -> dict[str, Any]:
    """Compare with the saved record; return it brought up to date.

    Args:
        path: of the run, for messages.
        saved: what its `config.json` holds.
        now: what it would hold of a new run.
        may_change: shell patterns of dotted keys that may differ.

    Raises:
        ValueError: other keys differ, or the batch size does where steps were taken.
    """
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


def same_origin(
    record: dict[str, Any], now: MadeFrom | None, path: Path, allow_change: bool
) -> dict[str, Any]:
    """Compare what the run was made from; return the record brought up to date.

    Raises:
        ValueError: it was made from something else, and `allow_change` is not set.
    """
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


def _arrow(pair: Sequence[Any]) -> str:
    return f"{pair[0]} -> {pair[1]}"
