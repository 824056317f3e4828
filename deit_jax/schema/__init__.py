"""Every configuration key once: its type, default, bounds or choices, and why; without JAX.

The defaults are the reference recipe: DeiT-S on ImageNet without a teacher (paper, Table 9).
Numbers that follow from others (steps, learning rate at this batch size) are computed and printed,
never set. "" or 0 or () stand for "not used", never None.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from deit_jax.schema.declare import SEED, key, rules
from deit_jax.schema.images import AugmentOptions, DataOptions, MixOptions
from deit_jax.schema.learning import (
    CheckpointOptions,
    EmaOptions,
    EvaluationOptions,
    LogOptions,
    MeshOptions,
    OptimizerOptions,
    ScheduleOptions,
    TrainingOptions,
)
from deit_jax.schema.networks import DistillationOptions, ModelOptions, TeacherOptions


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    seed: int = key(0, SEED)
    # Do as the reference code does wherever the paper or common sense differs: see
    # deit_jax.config.reference for the keys that this sets.
    reference: bool = key(False)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    mix: MixOptions = field(default_factory=MixOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    mesh: MeshOptions = field(default_factory=MeshOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    log: LogOptions = field(default_factory=LogOptions)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Config":
        """Return what a complete nested mapping, such as an `ml_collections.ConfigDict`, says.

        Raises:
            ValueError: a value is wrong; `deit_jax.config.validate` finds all that are.
        """
        types = typing.get_type_hints(cls)
        return cls(**{k: types[k](**v) if is_dataclass(types[k]) else v for k, v in values.items()})


RULES = rules(Config)
"""The rule of every key, by its dotted name."""
