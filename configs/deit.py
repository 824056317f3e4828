"""DeiT on ImageNet without a teacher (paper, Tables 3, 5 and 9).

    python train.py --config configs/deit.py:small --workdir runs/deit_small \
        --config.data.directory=DIR/imagenet2012/5.1.0

| argument | model | published top-1 | cost in the paper |
|---|---|---|---|
| tiny | deit_tiny_patch16_224 | 72.2 | under 3 days on 4 V100 |
| small | deit_small_patch16_224 | 79.8 (released weights 79.854) | under 3 days on 4 V100 |
| base | deit_base_patch16_224 | 81.8 | 53 hours on 8 V100 |

Not reproduced by this project so far: no ImageNet run has been made with it.
Deviations from the reference: the learning rate follows the step, not the epoch, so that no epoch
is spent twice at the warm-up rate; the evaluation counts every image once.
"""

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.paper import Cell, PaperTable
from deit_jax.config.variant import choose

ARGUMENTS = ("tiny", "small", "base")
PAPER = (
    PaperTable(
        "DeiT without a teacher (arXiv 2012.12877, Table 5)",
        ("top-1",),
        {
            size: (Cell(size, top1),)
            for size, top1 in zip(ARGUMENTS, (72.2, 79.8, 81.8), strict=True)
        },
    ),
)


def get_config(size: str = "small") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`; the recipe is that of `default_config`."""
    size = choose(size, ARGUMENTS, "model size")
    config = default_config()
    config.model.name = f"deit_{size}_patch16_224"
    return config
