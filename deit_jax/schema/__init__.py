"""Every configuration key once: its type, default, bounds or choices, and why; without JAX.

The defaults are the reference recipe: DeiT-S on ImageNet without a teacher (paper, Table 9).
Numbers that follow from others (steps, learning rate at this batch size) are computed and printed,
never set. "" or 0 or () stand for "not used", never None.
"""

from dataclasses import dataclass, field

from deit_jax.schema.declare import SEED, key, rules
from deit_jax.schema.images import Augment, Data, Mix
from deit_jax.schema.learning import (
    Checkpoint,
    Ema,
    Evaluation,
    Log,
    Optimizer,
    Schedule,
    Training,
)
from deit_jax.schema.networks import Distillation, Model, Teacher


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    seed: int = key(0, SEED)
    # Do as the reference code does wherever the paper or common sense differs: see
    # deit_jax.config.reference for the keys that this sets.
    reference: bool = key(False)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    mix: Mix = field(default_factory=Mix)
    model: Model = field(default_factory=Model)
    distillation: Distillation = field(default_factory=Distillation)
    teacher: Teacher = field(default_factory=Teacher)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    training: Training = field(default_factory=Training)
    ema: Ema = field(default_factory=Ema)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)


RULES = rules(Config)
"""The rule of every key, by its dotted name."""
