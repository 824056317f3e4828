"""Which values single keys may have, where the schema cannot say it: models and policies."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from deit_jax.augment.randaugment import parse_policy
from deit_jax.config.keys import nearest
from deit_jax.models.registry import list_models


def name_problems(config: ConfigDict) -> Iterator[str]:
    """Models that are not registered."""
    roles = {"model": config.model.name}
    if config.distillation.kind != "none":
        roles["teacher"] = config.teacher.name
    for role, name in roles.items():
        if name not in list_models():
            hint = nearest(str(name), list_models()) or " See `python -m deit_jax models`."
            yield f"config.{role}.name is {name!r}, which is unknown.{hint}"


def choice_problems(config: ConfigDict) -> Iterator[str]:
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
