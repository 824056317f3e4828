"""Handwritten digits: the whole method on a laptop, in minutes.

    python train.py --config configs/digits.py:teacher --workdir runs/digits/teacher
    python train.py --config configs/digits.py:none    --workdir runs/digits/none
    python train.py --config configs/digits.py:soft    --workdir runs/digits/soft
    python train.py --config configs/digits.py:hard    --workdir runs/digits/hard

The real images that scikit-learn ships (8 x 8 pixels, enlarged to 16 x 16): 50 of them, five of
each digit, are all that teacher and students train on, 800 are for evaluation. A small RegNetY is
the teacher; the students differ in nothing but their supervision (and the token that carries it).
`make demo` runs all four and prints the table. Two more students of the same hard labels, which one
pass of the teacher serves (docs/labels.md): `hard,class_token` without the distillation token, and
`hard,patch2` with patches of 2 x 2 pixels.

Published figure: none; the paper has no such experiment. docs/digits.md reports mean and spread.
Cost: about one minute each on two CPU cores.
Deviations: small models, no repeated augmentation, no stochastic depth; augmentation fit for
digits, which must not be flipped: shifts by up to two pixels, Mixup and (less often) CutMix. Soft
distillation weighs the teacher by 0.9 where the paper has 0.1: with so few labels there is little
else to learn from. The teacher's learning rate is three times the students', its training half as
long.
"""

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.variant import choose

ARGUMENTS = ("teacher", "none", "soft", "hard", "hard,class_token", "hard,patch2")


def get_config(what: str = "hard") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    what, _, student = choose(what, ARGUMENTS, "experiment").partition(",")
    config = default_config()
    config.data.source = "digits"
    config.data.eval_split = "test"
    config.data.train_images = 50
    config.data.crop = "none"
    config.data.eval_crop_ratio = 1.0
    config.data.repeats = 1
    config.data.threads = 1
    config.augment.flip = 0.0
    config.augment.policy = ""
    config.augment.crop_padding = 2
    config.augment.crop_mode = "constant"
    config.augment.erasing_probability = 0.0
    config.augment.mean = (0.5, 0.5, 0.5)
    config.augment.std = (0.5, 0.5, 0.5)
    config.mix.switch_probability = 0.3
    config.mix.group = 0
    config.model.num_classes = 10
    config.model.image_size = (16, 16)
    config.model.drop_path_rate = 0.0
    config.model.dtype = "float32"
    config.teacher.name = "regnety_micro"
    config.teacher.dtype = "float32"
    config.training.batch_size = 96
    config.evaluation.batch_size = 400
    config.evaluation.every_epochs = 200.0
    config.schedule.epochs = 4000.0
    config.schedule.warmup_epochs = 200.0
    config.ema.decay = 0.99
    config.ema.warmup = True
    config.log.every_steps = 25
    config.checkpoint.every_steps = 200
    if what == "teacher":
        config.model.name = "regnety_micro"
        config.optimizer.learning_rate = 3e-2
        config.schedule.epochs = 2000.0
        config.schedule.warmup_epochs = 100.0
        config.evaluation.every_epochs = 100.0
        return config
    # The paper's baseline has no distillation token; its distilled students do.
    token = "" if what == "none" or student == "class_token" else "_distilled"
    patch = 2 if student == "patch2" else 4
    config.model.name = f"deit_micro{token}_patch{patch}_16"
    config.optimizer.learning_rate = 1e-2
    if what != "none":
        config.teacher.weights = "runs/digits/teacher"
        config.distillation.kind = what
        config.distillation.weight = 0.9 if what == "soft" else 0.5
    return config
