"""All that can be wrong with a configuration, found at once and before anything compiles."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from deit_jax.augment.randaugment import parse_policy
from deit_jax.config.agreement_checks import recipe_problems, size_problems, teacher_problems
from deit_jax.config.conforming import key_problems, value_problems
from deit_jax.config.keys import nearest
from deit_jax.config.reference import reference_problems
from deit_jax.models.registry import list_models


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
        return problems + list(_name_problems(config))
    problems += _name_problems(config)
    problems += _choice_problems(config)
    problems += size_problems(config, device_count)
    problems += recipe_problems(config)
    problems += teacher_problems(config)
    problems += reference_problems(config)
    return problems


def _name_problems(config: ConfigDict) -> Iterator[str]:
    """Models that are not registered."""
    roles = {"model": config.model.name}
    if config.distillation.kind != "none":
        roles["teacher"] = config.teacher.name
    for role, name in roles.items():
        if name not in list_models():
            hint = nearest(str(name), list_models()) or " See `python -m deit_jax models`."
            yield f"config.{role}.name is {name!r}, which is unknown.{hint}"


def _choice_problems(config: ConfigDict) -> Iterator[str]:
    """Policies that cannot be read, and what a choice needs beside it."""
    if config.augment.policy:
        try:
            parse_policy(config.augment.policy)
        except ValueError as error:
            yield f"config.augment.policy: {error}"
    if config.data.fraction != 1 and config.data.train_images:
        yield "config.data.fraction and config.data.train_images both choose images; set one."
    if config.evaluation.weights == "ema" and not config.ema.decay:
        yield "config.evaluation.weights is 'ema' but config.ema.decay is 0: there is no average."
    if config.data.source != "digits" and not config.data.directory:
        yield (
            f"config.data.directory is empty but data source {config.data.source!r} needs one; "
            "pass --config.data.directory=DIR."
        )
