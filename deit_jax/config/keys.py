"""Configuration keys by their dotted names."""

import difflib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict


def nearest(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the name closest to a mistyped one, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def leaves_by_key(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a (possibly nested) configuration by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            leaves |= leaves_by_key(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
