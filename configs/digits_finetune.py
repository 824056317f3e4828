"""The students of the digits demo, fine-tuned at 24 x 24 pixels by a teacher that sees 16 x 16.

    python train.py --config configs/digits_finetune.py:hard --workdir runs/digits/hard_24 \
        --config.model.weights=runs/digits/hard --config.teacher.weights=runs/digits/teacher

The argument is that of the student (`none`, `soft`, `hard` of configs/digits.py, which `make demo`
trains) and is its supervision here too. Position embeddings grow from 4 x 4 to 6 x 6 patches; the
images are the same 50, enlarged. It is the small form of configs/finetune.py:384,hard.

Published figure: none; the paper has no such experiment. docs/results/digits-finetuning.md reports
mean and spread.
Cost: about half a minute each on two CPU cores.
Deviations: shifts by up to three pixels of 24, which is two of 16; a fifth of the learning rate of
the first training, with a cosine, where the reference's rate stays constant after warm-up.
"""

from ml_collections import ConfigDict

from configs import digits
from deit_jax.config.variant import choose

ARGUMENTS = ("none", "soft", "hard")


def get_config(what: str = "hard") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    config = digits.get_config(choose(what, ARGUMENTS, "experiment"))
    config.model.image_size = (24, 24)
    config.model.weights = f"runs/digits/{what}"
    if what != "none":
        config.teacher.image_size = (16, 16)
    # All of the image, enlarged: "none" is for images that have the model's size.
    config.data.crop = "random_resized"
    config.data.crop_scale = (1.0, 1.0)
    config.data.crop_ratio = (1.0, 1.0)
    config.augment.crop_padding = 3
    config.optimizer.learning_rate = 2e-3
    config.schedule.epochs = 400.0
    config.schedule.warmup_epochs = 20.0
    config.evaluation.every_epochs = 40.0
    return config
