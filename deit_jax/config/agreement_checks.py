"""What keys have to agree on: batch and devices, model and recipe, student and teacher."""

from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from deit_jax.config.kept_labels import has_labels
from deit_jax.models.registry import find_model
from deit_jax.weights.formats.hub import find_in_cache
from deit_jax.weights.pretrained import PACKAGES, packaged_weights

# Their numbers are kept in 16 bits.
_MOST_CLASSES = 1 << 16


def size_problems(config: ConfigDict, device_count: int) -> Iterator[str]:
    """Devices and batches that cannot be divided, images that cannot be cut."""
    fsdp = config.mesh.fsdp
    if device_count % fsdp:
        yield (
            f"config.mesh.fsdp is {fsdp}, which {device_count} device(s) cannot be divided by; "
            f"use a divisor of {device_count}."
        )
    batch, slices = config.training.batch_size, config.training.micro_batches
    for name, size in (("training", batch), ("evaluation", config.evaluation.batch_size)):
        if size % device_count:
            yield (
                f"config.{name}.batch_size is {size}, which {device_count} devices cannot share "
                f"evenly; use a multiple of {device_count}."
            )
    if slices > 1 and batch % (device_count * slices):
        yield (
            f"config.training.batch_size is {batch}, which cannot be cut into {slices} "
            f"micro-batches on {device_count} devices; use a multiple of {device_count * slices}."
        )
    spec = find_model(config.model.name)
    if slices > 1 and spec and spec.batch_norm:
        yield (
            f"config.training.micro_batches is {slices} but {config.model.name} has BatchNorm, "
            "whose statistics are of the whole batch; set it to 1."
        )
    group = config.mix.group
    mixes = any((config.mix.mixup_alpha, config.mix.cutmix_alpha, config.mix.minmax))
    if mixes and group > 0 and (batch // max(device_count, 1)) % group:
        yield (
            f"config.mix.group is {group} but each of {device_count} devices holds "
            f"{batch // device_count} images; use a divisor of that, or 0 for the whole batch."
        )
    if mixes and (group or batch) % 2:
        yield f"Mixing pairs images: {group or batch} images (mix.group or batch) is odd; use even."
    height, width = config.model.image_size
    patch = _patch_size(config.model.name)
    if height % patch or width % patch:
        yield (
            f"config.model.image_size is {height, width}, which {config.model.name} cannot cut "
            f"into patches of {patch} pixels; use multiples of {patch}."
        )
    yield from _network_problems(config)


def _network_problems(config: ConfigDict) -> Iterator[str]:
    name, heads = config.model.name, config.model.num_heads
    spec = find_model(name)
    kind = config.model.residual_dtype
    if kind != "float32" and spec is not None and spec.convnet:
        yield f"config.model.residual_dtype is {kind} but {name} is a convnet; leave it at float32."
    if (kernels := config.model.fused_kernels) != "none":
        if spec is not None and spec.convnet:
            yield (
                f"config.model.fused_kernels is {kernels} but {name} is a convnet; "
                "leave it at none."
            )
        elif config.model.drop_rate or config.training.remat == "blocks":
            yield (
                "config.model.fused_kernels is for models without dropout whose blocks are kept; "
                "set it to none, or config.model.drop_rate to 0 and config.training.remat to none."
            )
    if heads <= 0 or spec is None:
        return
    if spec.transformer is None:
        yield f"config.model.num_heads is {heads} but {name} is a convnet; set it to 0."
    elif spec.transformer.width % heads:
        yield (
            f"config.model.num_heads is {heads}, into which the width {spec.transformer.width} of "
            f"{name} cannot be cut; use a divisor of it, or 0 for the model's own."
        )


def recipe_problems(config: ConfigDict) -> Iterator[str]:
    """Find combinations of model, optimiser and schedule that mean nothing."""
    name, decay = config.model.name, config.optimizer.layer_decay
    spec = find_model(name)
    if spec and spec.convnet:
        if decay != 1.0:
            yield (
                f"config.optimizer.layer_decay is {decay} but {name} has no transformer blocks; "
                "set it to 1.0."
            )
        if config.training.remat != "none":
            yield (
                f"config.training.remat is {config.training.remat!r} but {name} has no transformer "
                "blocks; set it to 'none'."
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
    yield from _cosub_problems(config)
    if config.schedule.warmup_epochs > config.schedule.epochs:
        yield (
            f"config.schedule.warmup_epochs is {config.schedule.warmup_epochs}, longer than the "
            f"whole schedule of {config.schedule.epochs} epochs; shorten it."
        )


def _cosub_problems(config: ConfigDict) -> Iterator[str]:
    if not config.training.cosub:
        return
    where = "config.training.cosub has two submodels teach each other"
    if config.distillation.kind != "none":
        yield f"{where}, instead of a teacher; set it to False or distillation.kind to 'none'."
    spec = find_model(config.model.name)
    if spec and spec.distilled:
        yield f"{where} with one head each; choose a model without distillation token."
    if config.training.eval_mode or not config.model.drop_path_rate:
        yield (
            f"{where}, which without stochastic depth are the same; set model.drop_path_rate, and "
            "training.eval_mode to False."
        )


def teacher_problems(config: ConfigDict) -> Iterator[str]:
    """Find a teacher that is not there, or is shown impossible images."""
    if config.distillation.kind == "none":
        return
    yield from _teacher_images(config)
    weights, classes = config.teacher.weights, config.model.num_classes
    keeps = config.teacher.labels or (
        config.distillation.kind == "soft" and config.teacher.labels_top
    )
    if keeps and classes > _MOST_CLASSES:
        yield (
            f"config.model.num_classes is {classes:,}; of a teacher's labels at most "
            f"{_MOST_CLASSES:,} classes can be kept (teacher.labels, teacher.labels_top)."
        )
    if has_labels(config.teacher.labels):
        # Where they are complete, the teacher need not be there; whether is seen with the data.
        return
    remedy = (
        "train one (configs/teacher.py, configs/digits.py:teacher) and pass "
        "--config.teacher.weights=ITS_WORKDIR"
    )
    if not weights:
        yield (
            f"config.distillation.kind is {config.distillation.kind!r} but config.teacher.weights "
            f"is empty; {remedy}."
        )
    elif weights in PACKAGES and not Path(weights).exists():
        try:
            packaged_weights(weights)
        except FileNotFoundError as error:
            yield f"config.teacher.weights is {weights!r}. {error}"
    elif not Path(weights).exists() and find_in_cache(weights) is None:
        yield f"config.teacher.weights is {weights!r}, which does not exist; {remedy}."


def _teacher_images(config: ConfigDict) -> Iterator[str]:
    teacher = config.teacher
    size, patch = tuple(teacher.image_size), _patch_size(teacher.name)
    if size != (0, 0) and (min(size) <= 0 or any(side % patch for side in size)):
        yield (
            f"config.teacher.image_size is {size}; give height and width, multiples of {patch}, "
            "or (0, 0) for the student's."
        )
    if teacher.classes and not Path(teacher.classes).is_file():
        yield f"config.teacher.classes is {teacher.classes!r}, which is no file."


def _patch_size(name: str) -> int:
    """Patch size; 1 for convnets and for what is no model."""
    spec = find_model(name)
    return spec.patch_size if spec else 1
