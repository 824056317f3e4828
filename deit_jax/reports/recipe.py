"""A run's configuration, and where it differs from the recipe."""

from collections.abc import Mapping
from typing import Any

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.tables import Column, Rows

DIFFERENCES = (Column("key"), Column("this run"), Column("recipe"), Column("set by"))
ALL_KEYS = (Column("key"), Column("value"))


def recipe_differences(record: Mapping[str, Any], config: Mapping[str, Any]) -> Rows:
    """Return a row under `DIFFERENCES` for each key with another value than the paper's recipe.

    The recipe is the default of every key: DeiT-S on ImageNet without a teacher.

    Args:
        record: what `config.json` holds.
        config: its configuration, complete.
    """
    recipe = leaves_by_key(default_config())
    taught = config["distillation"]["kind"] != "none"
    given = {flag.partition("=")[0].removeprefix("config.") for flag in record.get("overrides", ())}
    return [
        [
            key,
            written(value),
            written(recipe[key]) if key in recipe else "(no such key any more)",
            "command line" if key in given else "config file",
        ]
        for key, value in leaves_by_key(config).items()
        if (taught or not key.startswith(("teacher.", "distillation.")))
        and (key not in recipe or _plain(value) != _plain(recipe[key]))
    ]


def all_keys(config: Mapping[str, Any]) -> Rows:
    """Return a row under `ALL_KEYS` for each key."""
    return [[key, written(value)] for key, value in leaves_by_key(config).items()]


def written(value: Any) -> str:
    """Write a value as it is given on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(written, value)) or "()"
    text = str(value)
    return '""' if value == "" else text.removesuffix(".0") if isinstance(value, float) else text


def _plain(value: Any) -> Any:
    """Return what a value is once it was JSON: tuples are lists."""
    return list(value) if isinstance(value, tuple) else value
