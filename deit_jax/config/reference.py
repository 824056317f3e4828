"""`reference=True`: the choices of the reference code in one bundle, to compare runs step by step.

The defaults follow the paper where code and paper differ, and common sense where the code has a
slip; docs/differences.md gives the reason for each.
"""

from collections.abc import Collection, Iterable
from typing import Any

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key

REFERENCE: dict[str, Any] = {
    # losses.py: the divergence is divided by outputs_kd.numel().
    "distillation.normaliser": "batch_times_classes",
    # engine.py, losses.py: without a teacher only the first output has a loss.
    "distillation.without_teacher": "class",
    # timm 0.3.2, rand_bbox and rand_bbox_minmax: cut // 2 to both sides, and an exclusive bound.
    "mix.box": "reference",
    # main.py: lr_scheduler.step(epoch) after the epoch.
    "schedule.per_epoch": True,
    # main.py ignores the number of epochs that create_scheduler returns.
    "schedule.cooldown_epochs": 0.0,
    # models.py, no_weight_decay: without the distillation token.
    "optimizer.no_decay": "reference",
    # timm 0.3.2, ModelEma: one decay from the first step.
    "ema.warmup": False,
    # models.py: mean of both logits at inference.
    "evaluation.fusion": "mean_logits",
}


def apply_reference(config: ConfigDict, overridden: Collection[str] = ()) -> list[str]:
    """Set the keys of `REFERENCE` if `config.reference` asks for it.

    Args:
        config: as a config file and the command line left it; changed in place.
        overridden: keys given on the command line.

    Returns:
        One sentence for each key that was set to something else; then nothing is changed.
    """
    if not config.reference:
        return []
    values, defaults = leaves_by_key(config), leaves_by_key(default_config())
    problems = [
        f"config.reference sets {key} to {wanted!r}, but it was given as {values[key]!r}; "
        "leave one of the two out."
        for key, wanted in REFERENCE.items()
        if values[key] != wanted and (key in overridden or values[key] != defaults[key])
    ]
    if not problems:
        config.update_from_flattened_dict(REFERENCE)
    return problems


def reference_problems(config: ConfigDict) -> Iterable[str]:
    """Find what keeps a configuration with `reference=True` from being the reference's."""
    if not config.reference:
        return
    values = leaves_by_key(config)
    for key, wanted in REFERENCE.items():
        if values[key] != wanted:
            yield f"config.reference is True but config.{key} is {values[key]!r}, not {wanted!r}."
    mix = config.mix
    if not mix.group and any((mix.mixup_alpha, mix.cutmix_alpha, mix.minmax)):
        yield (
            "config.mix.group is 0, but the reference draws one mixing weight for each process; "
            "set it to the batch of one process (its --batch-size, 64 by default)."
        )
    if config.training.loss != "cross_entropy" and config.training.label_smoothing:
        yield (
            f"config.training.loss is {config.training.loss!r} with label smoothing "
            f"{config.training.label_smoothing}, where the reference counts every class as "
            "present; set training.label_smoothing=0."
        )
