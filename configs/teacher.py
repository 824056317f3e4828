"""The RegNetY teachers, trained with the students' data and augmentation (paper, Table 2).

    python train.py --config configs/teacher.py:regnety_160 --workdir runs/regnety_160 \
        --config.data.directory=DIR/imagenet2012/5.1.0

| argument | published top-1 | parameters |
|---|---|---|
| regnety_040 | 80.0 | 20.6 M |
| regnety_080 | 81.7 | 39.2 M |
| regnety_120 | 82.4 | 51.8 M |
| regnety_160 | 82.9 | 83.6 M |
| regnety_320 | not in the paper | 145.0 M |

Cost: RegNetY-16GF takes about as long as DeiT-B (20 % longer in the paper: 64 hours on 8 V100).
Not reproduced by this project so far: no ImageNet run has been made with it.
Deviations: the paper gives no more of the recipe than "as DeiT" and, in its ICML version, "SGD".
Learning rate 0.1 per 128 images and weight decay 5e-5 are those of the RegNet paper
(arXiv 2003.13678, figure 21); 300 epochs, warm-up and augmentation are DeiT's.
"""

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.variant import choose

ARGUMENTS = ("regnety_040", "regnety_080", "regnety_120", "regnety_160", "regnety_320")


def get_config(name: str = "regnety_160") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    config = default_config()
    config.model.name = choose(name, ARGUMENTS, "teacher")
    config.model.drop_path_rate = 0.0
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.4
    config.optimizer.weight_decay = 5e-5
    config.schedule.final_learning_rate = 0.0
    return config
