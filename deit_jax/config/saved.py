"""Configurations that an earlier version of this program saved, before some keys existed."""

import copy
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.schema import RULES

BEFORE: dict[str, Any] = {"data.spread_copies": False, "mix.box": "timm"}
"""What runs did before a key existed, where a new run, or one with `reference=True`, does not."""


def complete(
    saved: Mapping[str, Any], keys: Iterable[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give keys that a saved configuration does not have the values that the run had.

    A key is added with a default that leaves everything as it was, so a run from before it existed
    is one with the default; exceptions are in `BEFORE`.

    Args:
        saved: nested configuration, read from JSON.
        keys: dotted names of the keys to look at; all keys of today if None.

    Returns:
        The configuration, and the dotted names and values that were added. Keys that have no
        default are never added, and keys of the past that no longer exist stay.
    """
    # As they will be when they are read again: tuples are lists.
    defaults = json.loads(json.dumps(leaves_by_key(default_config()) | BEFORE))
    present = leaves_by_key(saved)
    wanted = defaults if keys is None else keys
    added = {key: defaults[key] for key in wanted if key in defaults and key not in present}
    config = copy.deepcopy(dict(saved))
    # Versions before this one kept a leading ~ as it was written.
    paths = {key: present.get(key) for key, rule in RULES.items() if rule.path}
    paths = {key: os.path.expanduser(path) for key, path in paths.items() if isinstance(path, str)}
    for key, value in {**paths, **added}.items():
        *groups, name = key.split(".")
        group = config
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = value
    return config, added


def kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that the run of a record is older than, with the values it goes on with.

    Args:
        record: what `config.json` of the run holds.
    """
    config, added = complete(record["config"], BEFORE)
    older = {*record.get("older_than", ()), *added}
    return {key: value for key, value in leaves_by_key(config).items() if key in older}
