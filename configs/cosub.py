"""Co-training of submodels: two draws of stochastic depth teach each other (arXiv 2212.04884).

    python train.py --config configs/cosub.py:small --workdir runs/cosub_small \
        --config.data.directory=DIR/imagenet2012/5.1.0

The argument is the size: `small`, `base`, `large`, `huge`. Everything is configs/deit3.py's
training but for the loss: every image goes through the network twice, with different blocks left
out, and each of the two answers is compared with the label and with the other answer, all terms
alike in weight.

Published figure: 87.4 for base, trained so on ImageNet-21k and tuned at 448 (the paper's abstract);
the figures of this recipe on ImageNet-1k are not known to this project.
Cost: twice configs/deit3.py's for each epoch, as every image is computed twice.
Not reproduced by this project so far: no ImageNet run has been made with it.
Deviations: the reference's code computes what it drops, as this does; the paper also has a faster
way. The reference gives no command: batch, rate, epochs and stochastic depth are DeiT III's.
"""

from ml_collections import ConfigDict

from configs import deit3
from deit_jax.config.variant import choose

ARGUMENTS = ("small", "base", "large", "huge")


def get_config(size: str = "small") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    config = deit3.get_config(choose(size, ARGUMENTS, "model size"))
    config.training.cosub = True
    return config
