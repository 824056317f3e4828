"""DeiT-B on other data sets, from its ImageNet weights (paper, Tables 6 and 7).

    python -m deit_jax prepare --dataset cifar10 cifar-10-python.tar.gz DIR
    python train.py --config configs/transfer.py:cifar10 --workdir runs/cifar10 \
        --config.data.directory=DIR --config.model.weights=deit_base_patch16_224-b5f2ef4d.pth

| argument | classes | train / test images | published top-1 | with `,distilled` | recipe |
|---|---|---|---|---|---|
| cifar10 | 10 | 50,000 / 10,000 | 99.1 | 99.1 | SGD, 1000 epochs |
| cifar100 | 100 | 50,000 / 10,000 | 90.8 | 91.3 | AdamW, 1000 epochs |
| flowers | 102 | 2,040 / 6,149 | 98.4 | 98.8 | as cifar10 |
| cars | 196 | 8,144 / 8,041 | 92.1 | 92.9 | SGD, 1000 epochs |
| inat18 | 8142 | 437,513 / 24,426 | 73.2 | 73.7 | AdamW, 360 epochs |
| inat19 | 1010 | 265,240 / 3,003 | 77.7 | 78.4 | AdamW, 360 epochs |

The argument is also the name by which `prepare` knows the data set; docs/data.md has the command
for each. `,distilled` tunes the model with the distillation token, whose two heads then both learn
the labels.

Cost: not in the paper; an epoch of CIFAR has 1/26 of ImageNet's images.
Not reproduced by this project so far.
Deviations: the paper gives no recipes for these. They are what its authors answered in public
(facebookresearch/deit issues 45, 105 and 141; facebookresearch/dino issue 144); none was given for
Flowers. Images are enlarged to 224, as there.
"""

from ml_collections import ConfigDict

from deit_jax.config.defaults import default_config
from deit_jax.config.paper import Cell, PaperTable
from deit_jax.config.variant import choose_parts
from deit_jax.data.papers.facts import DATASETS

# Which recipe each data set has; what else is to know about it stands in DATASETS.
_DATA = {
    "cifar10": "sgd",
    "cifar100": "adamw",
    "flowers": "sgd",
    "cars": "sgd",
    "inat18": "inat",
    "inat19": "inat",
}
# Learning rates are for the batch of 768, not per 512 images.
_RECIPES: dict[str, dict[str, float | str]] = {
    "sgd": {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
        "optimizer.weight_decay": 1e-4,
        "schedule.epochs": 1000.0,
        "augment.erasing_probability": 0.0,
        "model.drop_path_rate": 0.0,
    },
    "adamw": {"optimizer.learning_rate": 5e-6, "schedule.epochs": 1000.0},
    "inat": {
        "optimizer.learning_rate": 7.5e-5,
        "schedule.epochs": 360.0,
        "augment.erasing_probability": 0.1,
    },
}
_TOKENS = ("plain", "distilled")
ARGUMENTS = tuple(f"{data}{token}" for data in _DATA for token in ("", ",distilled"))
_TABLE_7 = {
    "cifar10": (99.1, 99.1),
    "cifar100": (90.8, 91.3),
    "flowers": (98.4, 98.8),
    "cars": (92.1, 92.9),
    "inat18": (73.2, 73.7),
    "inat19": (77.7, 78.4),
}
PAPER = (
    PaperTable(
        "Transfer of DeiT-B at 224 (arXiv 2012.12877, Table 7)",
        ("labels", "both heads on labels"),
        {
            name: (Cell(name, plain), Cell(f"{name},distilled", distilled))
            for name, (plain, distilled) in _TABLE_7.items()
        },
    ),
)


def get_config(what: str = "cifar10") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    name, token = choose_parts(
        what if "," in what else f"{what},plain", ("data set", _DATA), ("model", _TOKENS)
    )
    config = default_config()
    distilled = "_distilled" if token == "distilled" else ""
    config.model.name = f"deit_base{distilled}_patch16_224"
    config.model.num_classes = DATASETS[name].classes
    config.model.weights = f"runs/deit_base{distilled}"
    config.data.source = "prepared"
    config.data.eval_split = "test"
    config.training.batch_size = 768
    # 8 processes of 96 images.
    config.mix.group = 96
    config.optimizer.per_images = 0
    # The published rates are as low as the default's end.
    config.schedule.final_learning_rate = 0.0
    config.update_from_flattened_dict(_RECIPES[_DATA[name]])
    return config
