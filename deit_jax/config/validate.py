"""All that can be wrong with a configuration, found at once and before anything compiles."""

from ml_collections import ConfigDict

from deit_jax.config.agreement_checks import recipe_problems, size_problems, teacher_problems
from deit_jax.config.conforming import key_problems, value_problems
from deit_jax.config.reference import reference_problems
from deit_jax.config.value_checks import choice_problems, name_problems


def validate(config: ConfigDict, *, device_count: int = 1) -> list[str]:
    """Return one sentence for every problem, each with the key, the value and what to do.

    Args:
        config: as a config file and the command line left it. Values that mean the same are written
            in the form of their key, in place: see `value_problems`.
        device_count: devices the batch will be split over.
    """
    if problems := list(key_problems(config)):
        # Without all keys, or with unknown ones, no other check can be trusted.
        return problems
    if problems := list(value_problems(config)):
        # Nor can what compares values that are none.
        return problems + list(name_problems(config))
    problems += name_problems(config)
    problems += choice_problems(config)
    problems += size_problems(config, device_count)
    problems += recipe_problems(config)
    problems += teacher_problems(config)
    problems += reference_problems(config)
    return problems
