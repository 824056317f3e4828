"""Every value of a configuration brought into the form of its key, or a sentence about it."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from deit_jax.config.keys import leaves_by_key, nearest
from deit_jax.schema import RULES
from deit_jax.schema.declare import conform


def key_problems(config: ConfigDict) -> Iterator[str]:
    """Yield a sentence for each key that is not in the schema, or is missing."""
    given = leaves_by_key(config)
    for key in sorted(given.keys() - RULES.keys()):
        yield f"config.{key} is read by nothing; remove it.{nearest(key, RULES)}"
    for key in sorted(RULES.keys() - given.keys()):
        yield f"config.{key} is missing; override single keys (--config.a.b=), not whole groups."


def value_problems(config: ConfigDict) -> Iterator[str]:
    """Yield a sentence for each value that its key cannot have; write the others in its form.

    What means the same is changed in place: a list or one number where the key is a pair, a whole
    number where it is a real one, a path that begins with ~.

    Args:
        config: with exactly the keys of the schema.
    """
    for key, value in leaves_by_key(config).items():
        try:
            assign(config, key, conform(f"config.{key}", value, RULES[key]))
        except ValueError as error:
            yield str(error)


def assign(config: ConfigDict, key: str, value: Any) -> None:
    """Set a key that is there by its dotted name, whatever type it had."""
    *groups, name = key.split(".")
    for group in groups:
        config = config[group]
    with config.ignore_type():
        config[name] = value
