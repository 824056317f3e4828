"""DeiT on ImageNet, taught by RegNetY-16GF: the six rows of Table 3 of the paper.

    python train.py --config configs/distill.py:small,hard --workdir runs/small_hard \
        --config.data.directory=DIR/imagenet2012/5.1.0 --config.teacher.weights=runs/regnety_160

The argument is a model (`tiny`, `small`, `base`), then `none`, `soft` or `hard`. Published top-1:

| arguments | row of Table 3 | tiny | small | base |
|---|---|---|---|---|
| SIZE,none | no distillation | 72.2 | 79.8 | 81.8 |
| SIZE,soft,class_token | usual distillation | 72.2 | 79.8 | 81.8 |
| SIZE,hard,class_token | hard distillation | 74.3 | 80.9 | 83.0 |
| SIZE,hard | class head alone | 73.9 | 80.9 | 83.0 |
| SIZE,hard | distillation head alone | 74.6 | 81.1 | 83.1 |
| SIZE,hard | both heads (released weights 74.476, 81.164, 83.372) | 74.5 | 81.2 | 83.4 |
| SIZE,soft | none published with the token | | | |

All heads of a run are measured, so one run gives the last three rows. `class_token` distils into
the class head of a model without the distillation token, which the reference code cannot run.
`1000` at the end of any argument trains for 1,000 epochs instead of 300, as in
`configs/distill.py:base,hard,1000`: published 76.6, 82.6, 84.2 (Table 5); for base also 81.8 with
`soft,class_token` and 84.1 with `hard,class_token` (Figure 3).

Cost: that of configs/deit.py and the teacher's forward pass, which has as many operations as the
forward pass of DeiT-B. Not reproduced by this project so far: no ImageNet run has been made.
Deviations: the soft loss is divided by the batch, as in eq. 2; the reference code divides by
batch times classes (`--config.distillation.normaliser=batch_times_classes`).
"""

from ml_collections import ConfigDict

from configs import deit
from deit_jax.config.paper import Cell, PaperTable
from deit_jax.config.variant import choose

_SIZES = ("tiny", "small", "base")
_METHODS = ("none", "soft", "hard", "soft,class_token", "hard,class_token")
_EPOCHS = ("", ",1000")
ARGUMENTS = tuple(
    f"{size},{method}{epochs}" for epochs in _EPOCHS for size in _SIZES for method in _METHODS
)

# Row of the paper: method, head, top-1 of the three models at 224, of DeiT-B at 384.
_TABLE_3 = {
    "none": ("none", "", (72.2, 79.8, 81.8), 83.1),
    "soft, class token": ("soft,class_token", "", (72.2, 79.8, 81.8), 83.2),
    "hard, class token": ("hard,class_token", "", (74.3, 80.9, 83.0), 84.0),
    "hard, class head": ("hard", "class", (73.9, 80.9, 83.0), 84.2),
    "hard, distil. head": ("hard", "distillation", (74.6, 81.1, 83.1), 84.4),
    "hard, both": ("hard", "fused", (74.5, 81.2, 83.4), 84.5),
}
_LONG = {
    "soft, class token": ("soft,class_token", (None, None, 81.8)),
    "hard, class token": ("hard,class_token", (None, None, 84.1)),
    "hard, both": ("hard", (76.6, 82.6, 84.2)),
}


def _cells(method: str, figures: tuple[float | None, ...], head: str = "") -> tuple[Cell, ...]:
    pairs = zip(_SIZES, figures, strict=True)
    return tuple(Cell(f"{size},{method}", top1, head) for size, top1 in pairs)


def _tuned(method: str, top1: float, head: str) -> Cell:
    return Cell("384" if method == "none" else f"384,{method}", top1, head, "finetune")


PAPER = (
    PaperTable(
        "Distillation, 300 epochs (arXiv 2012.12877, Table 3)",
        ("Ti 224", "S 224", "B 224", "B 384"),
        {
            row: (*_cells(method, figures, head), _tuned(method, top1, head))
            for row, (method, head, figures, top1) in _TABLE_3.items()
        },
    ),
    PaperTable(
        "Distillation, 1,000 epochs (arXiv 2012.12877, Table 5 and Figure 3)",
        ("Ti 224", "S 224", "B 224"),
        {row: _cells(f"{method},1000", figures) for row, (method, figures) in _LONG.items()},
    ),
)


def get_config(what: str = "small,hard") -> ConfigDict:
    """Return the configuration of one of `ARGUMENTS`."""
    given = what.removesuffix(",1000")
    size, _, method = given.partition(",")
    choose(size, _SIZES, "model size")
    choose(method, _METHODS, "distillation")
    config = deit.get_config(size)
    if what != given:
        config.schedule.epochs = 1000.0
    distil(config, method)
    return config


def distil(config: ConfigDict, method: str) -> None:
    """Teach the model of a configuration by `method`, one of those of the docstring."""
    kind, _, token = method.partition(",")
    if kind == "none":
        return
    if not token:
        # The names of the models with the token, as in the reference.
        config.model.name = config.model.name.replace("_patch16", "_distilled_patch16")
    config.distillation.kind = kind
    # Paper, sections 4 and 5: lambda = 0.1, tau = 3 for soft; one half for hard.
    config.distillation.weight = 0.1 if kind == "soft" else 0.5
