"""The configuration that config files start from."""

import dataclasses

from ml_collections import ConfigDict

from deit_jax.schema import Config


def default_config() -> ConfigDict:
    """Return every key of the schema with its default; a config file changes what it needs.

    Any value can be assigned: `validate` checks all of them, with their keys, and writes what means
    the same (one number for both sides) in one form.
    """
    return ConfigDict(dataclasses.asdict(Config()), type_safe=False)
