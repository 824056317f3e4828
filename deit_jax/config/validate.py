"""All that can be wrong with a configuration, found at once and before anything compiles."""

import math
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from deit_jax.augment.policies import parse_policy
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import flatten, nearest
from deit_jax.config.reference import reference_problems
from deit_jax.models.registry import list_models
from deit_jax.weights.convnets import convnet_family
from deit_jax.weights.hub import find_in_cache

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
    "data.source": ("tfds", "folder", "prepared", "digits"),
    "data.crop": ("random_resized", "none"),
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
    problems += _ranges(config)
    problems += _choices(config)
    problems += _sizes(config, device_count)
    problems += _recipe(config)
    problems += _teacher(config)
    problems += reference_problems(config)
    return problems


def _keys(config: ConfigDict) -> Iterator[str]:
    known, given = flatten(default_config()), flatten(config)
    for key in given.keys() - known.keys():
        yield f"config.{key} is read by nothing; remove it.{nearest(key, known)}"
    for key in known.keys() - given.keys():
        yield f"config.{key} is missing; override single keys (--config.a.b=), not whole groups."


def _ranges(config: ConfigDict) -> Iterator[str]:
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


def _choices(config: ConfigDict) -> Iterator[str]:
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


def _sizes(config: ConfigDict, device_count: int) -> Iterator[str]:
    batch, slices = config.training.batch_size, config.training.micro_batches
    for name, size in (("training", batch), ("evaluation", config.evaluation.batch_size)):
        if size % device_count:
            yield (
                f"config.{name}.batch_size is {size}, which {device_count} devices cannot share "
                f"evenly; use a multiple of {device_count}."
            )
    if slices > 0 and batch % (device_count * slices):
        yield (
            f"config.training.batch_size is {batch}, which cannot be cut into {slices} "
            f"micro-batches on {device_count} devices; use a multiple of {device_count * slices}."
        )
    if slices > 1 and convnet_family(config.model.name):
        yield (
            f"config.training.micro_batches is {slices} but {config.model.name} has BatchNorm, "
            "whose statistics are of the whole batch; set it to 1."
        )
    group = config.mix.group
    mixes = config.mix.mixup_alpha > 0 or config.mix.cutmix_alpha > 0
    if mixes and group > 0 and (batch // max(device_count, 1)) % group:
        yield (
            f"config.mix.group is {group} but each of {device_count} devices holds "
            f"{batch // device_count} images; use a divisor of that, or 0 for the whole batch."
        )
    if mixes and (group or batch) % 2:
        yield f"Mixing pairs images: {group or batch} images (mix.group or batch) is odd; use even."
    height, width = config.model.image_size
    patch = _patch_size(config.model.name)
    if min(height, width) <= 0 or height % patch or width % patch:
        yield (
            f"config.model.image_size is {height, width}, which {config.model.name} cannot cut "
            f"into patches of {patch} pixels; use multiples of {patch}."
        )


def _recipe(config: ConfigDict) -> Iterator[str]:
    name, decay = config.model.name, config.optimizer.layer_decay
    if _patch_size(name) == 1:
        if decay != 1.0:
            yield (
                f"config.optimizer.layer_decay is {decay} but {name} has no transformer blocks; "
                "set it to 1.0."
            )
        if config.training.parts == "attention":
            yield f"config.training.parts is 'attention', which {name} has not; choose 'heads'."
    if config.optimizer.name == "lamb" and not config.optimizer.weight_decay:
        yield (
            "config.optimizer.name is 'lamb' with weight_decay 0, where it would be Adam: trust "
            "ratios are for what is decayed; set a weight_decay or choose 'adamw'."
        )
    if config.training.eval_mode and config.distillation.kind != "none":
        yield (
            "config.training.eval_mode averages the heads before the loss, so there is none for "
            "the teacher; set it to False or distillation.kind to 'none'."
        )
    noise = tuple(config.schedule.noise_range)
    if noise and not (len(noise) == 2 and 0 <= noise[0] < noise[1]):
        yield (
            f"config.schedule.noise_range is {noise}; give two rising shares of the epochs, "
            "or () for no noise."
        )
    if config.schedule.warmup_epochs > config.schedule.epochs:
        yield (
            f"config.schedule.warmup_epochs is {config.schedule.warmup_epochs}, longer than the "
            f"whole schedule of {config.schedule.epochs} epochs; shorten it."
        )


def _patch_size(name: str) -> int:
    """Patch size as the model's name states it; 1 for convnets."""
    digits = name.partition("_patch")[2].partition("_")[0]
    return int(digits) if digits.isdigit() else 1


def _teacher(config: ConfigDict) -> Iterator[str]:
    if config.distillation.kind == "none":
        return
    weights = config.teacher.weights
    remedy = (
        "train one (configs/teacher.py, configs/digits.py:teacher) and pass "
        "--config.teacher.weights=ITS_WORKDIR"
    )
    if not weights:
        yield (
            f"config.distillation.kind is {config.distillation.kind!r} but config.teacher.weights "
            f"is empty; {remedy}."
        )
    elif not Path(weights).exists() and find_in_cache(weights) is None:
        yield f"config.teacher.weights is {weights!r}, which does not exist; {remedy}."
    yield from _teacher_images(config)


def _teacher_images(config: ConfigDict) -> Iterator[str]:
    teacher = config.teacher
    for key in ("mean", "std"):
        if len(teacher[key]) not in (0, 3):
            yield f"config.teacher.{key} is {tuple(teacher[key])}; give three numbers, or ()."
    if any(value <= 0 for value in teacher.std):
        yield f"config.teacher.std is {tuple(teacher.std)}; deviations must be positive."
    size, patch = tuple(teacher.image_size), _patch_size(teacher.name)
    if size != (0, 0) and (len(size) != 2 or min(size) <= 0 or any(side % patch for side in size)):
        yield (
            f"config.teacher.image_size is {size}; give height and width, multiples of {patch}, "
            "or (0, 0) for the student's."
        )
    if teacher.classes and not Path(teacher.classes).is_file():
        yield f"config.teacher.classes is {teacher.classes!r}, which is no file."
