"""A linear classifier on features that do not change (linear probe).

    python train.py --config configs/linear.py:small --workdir runs/linear_small \
        --config.data.directory=DIR/imagenet2012/5.1.0 \
        --config.model.weights=deit_small_patch16_224-cd65a155.pth

The argument is the model: `tiny`, `small`, `base`. Give other weights, or other data with
`--config.data.directory` and `--config.model.num_classes`; the network keeps every bit but its
heads, and has no optimiser state.

Published figure: none; neither the paper nor the reference code has this experiment.
Cost: one third of an epoch of training for each, since nothing is differentiated but the head.
Deviations: the recipe is DINO's (arXiv 2104.14294, linear evaluation): SGD with momentum, learning
rate 0.001 per 256 images, no weight decay, 100 epochs, crops and flips only.
"""

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.variant import choose

ARGUMENTS = ("tiny", "small", "base")


def get_config(size: str = "small") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    size = choose(size, ARGUMENTS, "model size")
    config = default_config()
    config.model.name = f"deit_{size}_patch16_224"
    config.model.weights = f"runs/deit_{size}"
    config.model.drop_path_rate = 0.0
    config.data.repeats = 1
    config.augment.policy = ""
    config.augment.erasing_probability = 0.0
    config.mix.mixup_alpha = 0.0
    config.mix.cutmix_alpha = 0.0
    config.optimizer.update(name="sgd", nesterov=False, weight_decay=0.0)
    config.optimizer.update(learning_rate=0.001, per_images=256)
    config.schedule.update(epochs=100.0, warmup_epochs=0.0, final_learning_rate=0.0)
    config.training.parts = "heads"
    config.training.label_smoothing = 0.0
    config.ema.decay = 0.0
    return config
