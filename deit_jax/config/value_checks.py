"""Which values single keys may have: bounds and lists of choices."""

import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from deit_jax.augment.policies import parse_policy
from deit_jax.config.keys import flatten, nearest
from deit_jax.models.registry import list_models

_POSITIVE = (
    "training.batch_size",
    "training.micro_batches",
    "training.max_skipped_steps",
    "evaluation.batch_size",
    "evaluation.every_epochs",
    "schedule.epochs",
    "schedule.decay_epochs",
    "schedule.noise_std",
    "schedule.noise_limit",
    "optimizer.learning_rate",
    "optimizer.layer_decay",
    "optimizer.eps",
    "distillation.temperature",
    "model.num_classes",
    "data.repeats",
    "data.threads",
    "data.prefetch",
    "augment.erasing_count",
    "augment.erasing_aspect",
    "log.every_steps",
    "checkpoint.every_steps",
    "checkpoint.keep_latest",
)
_NOT_NEGATIVE = (
    "schedule.warmup_epochs",
    "schedule.cooldown_epochs",
    "schedule.warmup_learning_rate",
    "schedule.final_learning_rate",
    "optimizer.weight_decay",
    "optimizer.per_images",
    "optimizer.clip_norm",
    "mix.mixup_alpha",
    "mix.cutmix_alpha",
    "mix.group",
    "augment.crop_padding",
    "augment.color_jitter",
    "data.train_images",
    "data.classes",
    "data.max_damaged",
    "data.workers",
    "checkpoint.keep_every_steps",
    "checkpoint.keep_best",
)
_FRACTIONS = (
    "augment.flip",
    "augment.erasing_probability",
    "mix.probability",
    "mix.switch_probability",
    "training.label_smoothing",
    "distillation.weight",
    "schedule.decay_rate",
)
_BELOW_ONE = (
    "model.drop_rate",
    "model.drop_path_rate",
    "ema.decay",
    "optimizer.b1",
    "optimizer.b2",
    "optimizer.momentum",
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "data.source": ("tfds", "folder", "numbered_folder", "prepared", "digits"),
    "data.crop": ("random_resized", "simple", "none"),
    "data.interpolation": ("bicubic", "bilinear", "random"),
    "model.dtype": ("float32", "bfloat16"),
    "teacher.dtype": ("float32", "bfloat16"),
    "distillation.kind": ("none", "soft", "hard"),
    "distillation.normaliser": ("batch", "batch_times_classes"),
    "distillation.without_teacher": ("both", "class"),
    "optimizer.name": ("adamw", "sgd", "lamb"),
    "optimizer.no_decay": ("reference", "timm"),
    "schedule.name": ("cosine", "linear", "step", "constant"),
    "training.loss": (
        "cross_entropy",
        "binary_cross_entropy",
        "multi_hot_binary_cross_entropy",
    ),
    "training.parts": ("all", "attention", "heads"),
    "evaluation.fusion": ("mean_logits", "sum_softmax"),
    "evaluation.weights": ("raw", "ema"),
    "mix.mode": ("batch", "pair", "elem"),
    "augment.crop_mode": ("constant", "reflect"),
    "augment.interpolation": ("bicubic", "bilinear", "random"),
    "augment.erasing_mode": ("const", "rand", "pixel"),
}


def range_problems(config: ConfigDict) -> Iterator[str]:
    """Numbers beyond their bounds."""
    values = flatten(config)
    bounds = [
        (_POSITIVE, "positive", lambda v: v > 0),
        (_NOT_NEGATIVE, "at least 0", lambda v: v >= 0),
        (_FRACTIONS, "between 0 and 1", lambda v: 0 <= v <= 1),
        (_BELOW_ONE, "at least 0 and below 1", lambda v: 0 <= v < 1),
    ]
    for keys, words, holds in bounds:
        for key in keys:
            if not math.isfinite(values[key]) or not holds(values[key]):
                yield f"config.{key} is {values[key]}; it must be {words}."
    low, high = config.data.crop_scale
    if not 0 < low <= high <= 1:
        yield f"config.data.crop_scale is {low, high}; give two areas, 0 < low <= high <= 1."
    low, high = config.data.crop_ratio
    if not 0 < low <= high:
        yield f"config.data.crop_ratio is {low, high}; give two ratios, 0 < low <= high."
    if not 0 < config.data.fraction <= 1:
        yield f"config.data.fraction is {config.data.fraction}; it must be in (0, 1]."
    if config.data.fraction != 1 and config.data.train_images:
        yield "config.data.fraction and config.data.train_images both choose images; set one."
    if not 0 < config.data.eval_crop_ratio <= 1:
        yield f"config.data.eval_crop_ratio is {config.data.eval_crop_ratio}; it must be in (0, 1]."


def choice_problems(config: ConfigDict) -> Iterator[str]:
    """Words that are none of the choices, and what a choice needs beside it."""
    values = flatten(config)
    choices = _CHOICES | {"model.name": tuple(list_models())}
    if config.distillation.kind != "none":
        choices["teacher.name"] = tuple(list_models())
    for key, options in choices.items():
        if values[key] not in options:
            listed = f" It must be one of {', '.join(options)}." if len(options) < 8 else ""
            hint = nearest(values[key], options) or listed
            yield f"config.{key} is {values[key]!r}, which is unknown.{hint}"
    if config.augment.policy:
        try:
            parse_policy(config.augment.policy)
        except ValueError as error:
            yield f"config.augment.policy: {error}"
    if config.evaluation.weights == "ema" and not config.ema.decay:
        yield "config.evaluation.weights is 'ema' but config.ema.decay is 0: there is no average."
    if config.data.source != "digits" and not config.data.directory:
        yield (
            f"config.data.directory is empty but data source {config.data.source!r} needs one; "
            "pass --config.data.directory=DIR."
        )
