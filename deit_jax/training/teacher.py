"""The frozen teacher: read once, folded, never trained and never written to a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from deit_jax.models.frozen import freeze
from deit_jax.models.functional import ModelFunction, Tree
from deit_jax.training.checkpoint import load_weights
from deit_jax.training.run_directory import load_run


@dataclass(frozen=True)
class Teacher:
    """A model to ask, its parameters, and where they came from (for `result.json`)."""

    function: ModelFunction
    params: Tree
    facts: dict[str, Any] = field(default_factory=dict)


def load_teacher(config: ConfigDict) -> Teacher | None:
    """Load the teacher that `config.teacher` names, or return None without distillation.

    Raises:
        FileNotFoundError: there is no run or no checkpoint at `teacher.weights`.
        ValueError: it holds another model, other classes, or a damaged checkpoint.
    """
    if config.distillation.kind == "none":
        return None
    options = config.teacher
    run = load_run(options.weights)
    _check(run.config, config)
    which = int(options.checkpoint) if options.checkpoint.isdigit() else options.checkpoint
    weights = "ema" if options.ema else "params"
    params, batch_stats, meta = load_weights(f"{options.weights}/checkpoints", which, weights)
    function, params = freeze(
        options.name,
        params,
        batch_stats,
        num_classes=config.model.num_classes,
        image_size=tuple(config.model.image_size),
        dtype=jnp.dtype(options.dtype),
    )
    facts = {
        "name": options.name,
        "weights": options.weights,
        "step": meta["step"],
        "ema": options.ema,
        "top1": (meta["metrics"] or {}).get("top1"),
    }
    return Teacher(function, params, facts)


def _check(teacher: dict[str, Any], config: ConfigDict) -> None:
    """Refuse a run whose model cannot teach this student."""
    model, wanted = teacher["model"], config.teacher
    where = f"The teacher run {wanted.weights!r}"
    if model["name"] != wanted.name:
        raise ValueError(
            f"{where} trained {model['name']}, but config.teacher.name is {wanted.name}; "
            f"pass --config.teacher.name={model['name']} or other weights."
        )
    if model["num_classes"] != config.model.num_classes:
        raise ValueError(
            f"{where} has {model['num_classes']} classes, the student {config.model.num_classes}; "
            "a teacher must know the student's classes."
        )
    for key in ("mean", "std"):
        if tuple(teacher["augment"][key]) != tuple(config.augment[key]):
            raise ValueError(
                f"{where} was trained with augment.{key}={tuple(teacher['augment'][key])}, the "
                f"student has {tuple(config.augment[key])}; both see the same images, so use one."
            )
