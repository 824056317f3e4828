"""Flags of the reference's main.py (facebookresearch/deit at 7e160fe) and what takes their place.

The tables of docs/coming-from-pytorch.md are these lines, and so is the answer to someone who gives
such a flag to train.py.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_PAGE = "docs/coming-from-pytorch.md"


class Flag(NamedTuple):
    """A line of the table.

    Attributes:
        flags: with their default there.
        here: a key, another command, or "not needed".
        remark: what is different, or why it is not needed.
    """

    flags: str
    here: str
    remark: str = ""


FLAGS = (
    # Run
    Flag("`--batch-size 64`", "`training.batch_size`", "of all devices; 1024 is the default"),
    Flag("`--epochs 300`", "`schedule.epochs`"),
    Flag("`--seed 0`", "`seed`", "of everything; no process adds its rank"),
    Flag(
        "`--device cuda`",
        "not needed",
        "JAX uses all devices it finds; `JAX_PLATFORMS=cpu` for the processor",
    ),
    Flag("`--num_workers 10`", "`data.workers`", "processes; `data.threads` in each"),
    Flag(
        "`--pin-mem`, `--no-pin-mem`",
        "not needed",
        "batches go to the devices while the last step runs",
    ),
    Flag("`--output_dir`", "`--workdir`"),
    Flag(
        "`--start_epoch`, `--resume`",
        "not needed",
        "the same command goes on from the last checkpoint, to the same bits",
    ),
    Flag("`--eval`", "`python -m deit_jax evaluate RUN`"),
    Flag("`--dist-eval`", "not needed", "always over all devices, every image once"),
    Flag("`--eval-crop-ratio 0.875`", "`data.eval_crop_ratio`"),
    Flag(
        "`--distributed`, `--world_size`, `--dist_url`",
        "not needed",
        "one process drives all devices of a machine",
    ),
    # Model and data
    Flag("`--model`", "`model.name`", "the same names"),
    Flag("`--input-size 224`", "`model.image_size`", "one number, or height and width: `=384,256`"),
    Flag("`--drop 0`", "`model.drop_rate`"),
    Flag("`--drop-path 0.1`", "`model.drop_path_rate`"),
    Flag(
        "`--finetune`",
        "`model.weights`",
        "files of any layout, directories, runs; says what was used and left over",
    ),
    Flag("`--attn-only`", "`training.parts`", "`=attention`; here with the distillation head"),
    Flag("`--data-path`", "`data.directory`"),
    Flag(
        "`--data-set IMNET`", "`data.source`", "what kind of storage; classes: `model.num_classes`"
    ),
    Flag(
        "`--inat-category`",
        "not needed",
        "the class is the folder or the label of the data set prepared",
    ),
    Flag("`--model-ema`, `--no-model-ema`", "`ema.decay`", "0 switches it off"),
    Flag(
        "`--model-ema-decay 0.99996`",
        "`ema.decay`",
        "a run that is too short for it says so at its start",
    ),
    Flag(
        "`--model-ema-force-cpu`", "not needed", "the average is a part of the state on the devices"
    ),
    # Optimiser and schedule
    Flag(
        "`--opt adamw`",
        "`optimizer.name`",
        "`adamw`, `sgd` (`momentum` is `sgd` with `optimizer.nesterov=False`), `lamb`",
    ),
    Flag("`--opt-eps 1e-8`", "`optimizer.eps`"),
    Flag("`--opt-betas`", "`optimizer.b1`, `optimizer.b2`"),
    Flag("`--clip-grad`", "`optimizer.clip_norm`", "0 does not clip"),
    Flag("`--momentum 0.9`", "`optimizer.momentum`"),
    Flag("`--weight-decay 0.05`", "`optimizer.weight_decay`"),
    Flag("`--lr 5e-4`", "`optimizer.learning_rate`", "per 512 images, as there"),
    Flag("`--unscale-lr`", "`optimizer.per_images`", "`=0`"),
    Flag("`--sched cosine`", "`schedule.name`", "`cosine`, `linear`, `step`, `constant`"),
    Flag("`--lr-noise`", "`schedule.noise_range`", "shares of the epochs: `=0.5,1.0`"),
    Flag("`--lr-noise-pct 0.67`", "`schedule.noise_limit`"),
    Flag("`--lr-noise-std 1.0`", "`schedule.noise_std`"),
    Flag(
        "`--warmup-lr 1e-6`",
        "`schedule.warmup_learning_rate`",
        "not scaled with the batch, as there; training says so where it lies above the peak",
    ),
    Flag("`--warmup-epochs 5`", "`schedule.warmup_epochs`"),
    Flag(
        "`--min-lr 1e-5`",
        "`schedule.final_learning_rate`",
        "not scaled with the batch, as there; training says so where it lies above the peak",
    ),
    Flag("`--decay-epochs 30`", "`schedule.decay_epochs`", "`step` only"),
    Flag("`--decay-rate 0.1`", "`schedule.decay_rate`", "`step` only"),
    Flag("`--cooldown-epochs 10`", "`schedule.cooldown_epochs`", "0 here: it has no effect there"),
    Flag(
        "`--patience-epochs 10`",
        "not needed",
        "for a schedule (`plateau`) that the reference does not step by a metric",
    ),
    # Augmentation and loss
    Flag("`--aa rand-m9-mstd0.5-inc1`", "`augment.policy`", 'timm\'s names; `""` switches it off'),
    Flag(
        "`--color-jitter 0.3`",
        "`augment.color_jitter`",
        "0 here: it has no effect there beside `--aa`",
    ),
    Flag("`--ThreeAugment`", "`augment.policy`", "`=3a`, as in configs/deit3.py"),
    Flag("`--src`", "`data.crop`", "`=simple`"),
    Flag(
        "`--train-interpolation bicubic`",
        "`data.interpolation`",
        "of crops; `augment.interpolation` of rotations and shears",
    ),
    Flag(
        "`--repeated-aug`, `--no-repeated-aug`",
        "`data.repeats`",
        "3, or 1; also on one device, where mixing groups take the place of processes",
    ),
    Flag("`--smoothing 0.1`", "`training.label_smoothing`"),
    Flag("`--reprob 0.25`", "`augment.erasing_probability`"),
    Flag("`--remode pixel`", "`augment.erasing_mode`"),
    Flag("`--recount 1`", "`augment.erasing_count`"),
    Flag("`--resplit`", "not needed", "nothing reads it there"),
    Flag("`--mixup 0.8`", "`mix.mixup_alpha`"),
    Flag("`--cutmix 1.0`", "`mix.cutmix_alpha`"),
    Flag("`--cutmix-minmax`", "`mix.minmax`"),
    Flag("`--mixup-prob 1.0`", "`mix.probability`"),
    Flag("`--mixup-switch-prob 0.5`", "`mix.switch_probability`"),
    Flag(
        "`--mixup-mode batch`",
        "`mix.mode`",
        "one draw for `mix.group` images, there for the batch of a process",
    ),
    Flag("`--bce-loss`", "`training.loss`", "`=multi_hot_binary_cross_entropy`"),
    Flag(
        "`--train-mode`, `--no-train-mode`", "`training.eval_mode`", "`=True` is `--no-train-mode`"
    ),
    Flag("`--cosub`", "`training.cosub`"),
    # Distillation
    Flag(
        "`--teacher-model regnety_160`",
        "`teacher.name`",
        "need not be given: the weights say what they are of",
    ),
    Flag("`--teacher-path`", "`teacher.weights`", "a file of any layout, or a run of `train.py`"),
    Flag("`--distillation-type none`", "`distillation.kind`"),
    Flag(
        "`--distillation-alpha 0.5`",
        "`distillation.weight`",
        "0.1 for soft in the configs, as in the paper",
    ),
    Flag("`--distillation-tau 1.0`", "`distillation.temperature`", "3.0 here, as in the paper"),
    # run_with_submitit.py
    Flag(
        "`--ngpus`, `--nodes`, `--timeout`, `--partition`, `--comment`, `--use_volta32`",
        "options of sbatch for the script that `python -m deit_jax sweep --print-slurm` prints",
    ),
    Flag("`--job_dir`", "`--workdir`"),
)


def answers(arguments: Iterable[str]) -> list[str]:
    """Return a sentence for each argument that is a flag of the reference, with what it is here.

    Hyphens and underscores, which the reference mixes, count as the same.
    """
    known = {_plain(name): flag for flag in FLAGS for name in re.findall(r"--[\w-]+", flag.flags)}
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return [_answer(name, known[_plain(name)]) for name in given if _plain(name) in known]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _answer(name: str, flag: Flag) -> str:
    here = re.sub(r"`(seed|\w+\.\w+)`", r"--config.\1", flag.here).replace("`", "")
    remark = flag.remark.replace("`", "")
    if here == "not needed":
        return (
            f"{name} is a flag of PyTorch's DeiT; leave it out, it is not needed here ({remark})."
        )
    remark = f" ({remark})" if remark else ""
    return (
        f"{name} is a flag of PyTorch's DeiT; here it is {here}{remark}. {_PAGE} has all of them."
    )
