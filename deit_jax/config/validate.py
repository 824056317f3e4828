"""All that can be wrong with a configuration, found at once and before anything compiles."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from deit_jax.config.agreement_checks import recipe_problems, size_problems, teacher_problems
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import flatten, nearest
from deit_jax.config.reference import reference_problems
from deit_jax.config.value_checks import choice_problems, range_problems


def validate(config: ConfigDict, *, device_count: int = 1) -> list[str]:
    """Return one sentence for every problem, each with the key, the value and what to do.

    Args:
        config: as a config file and the command line left it.
        device_count: devices the batch will be split over.
    """
    problems = list(_keys(config))
    if problems:
        # Without all keys, or with unknown ones, no other check can be trusted.
        return problems
    problems += range_problems(config)
    problems += choice_problems(config)
    problems += size_problems(config, device_count)
    problems += recipe_problems(config)
    problems += teacher_problems(config)
    problems += reference_problems(config)
    return problems


def _keys(config: ConfigDict) -> Iterator[str]:
    known, given = flatten(default_config()), flatten(config)
    for key in given.keys() - known.keys():
        yield f"config.{key} is read by nothing; remove it.{nearest(key, known)}"
    for key in known.keys() - given.keys():
        yield f"config.{key} is missing; override single keys (--config.a.b=), not whole groups."
