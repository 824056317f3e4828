"""The table of the reference's flags: none is missing, and every key it names exists."""

import re
from pathlib import Path

import pytest

from deit_jax.config import reference_flags
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-pytorch.md"
# All of main.py's parser at 7e160fe.
FLAGS = """
    --batch-size --epochs --bce-loss --unscale-lr --model --input-size --drop --drop-path
    --model-ema --no-model-ema --model-ema-decay --model-ema-force-cpu --opt --opt-eps --opt-betas
    --clip-grad --momentum --weight-decay --sched --lr --lr-noise --lr-noise-pct --lr-noise-std
    --warmup-lr --min-lr --decay-epochs --warmup-epochs --cooldown-epochs --patience-epochs
    --decay-rate --color-jitter --aa --smoothing --train-interpolation --repeated-aug
    --no-repeated-aug --train-mode --no-train-mode --ThreeAugment --src --reprob --remode --recount
    --resplit --mixup --cutmix --cutmix-minmax --mixup-prob --mixup-switch-prob --mixup-mode
    --teacher-model --teacher-path --distillation-type --distillation-alpha --distillation-tau
    --cosub --finetune --attn-only --data-path --data-set --inat-category --output_dir --device
    --seed --resume --start_epoch --eval --eval-crop-ratio --dist-eval --num_workers --pin-mem
    --no-pin-mem --distributed --world_size --dist_url
"""
GROUPS = {key.partition(".")[0] for key in leaves_by_key(default_config()) if "." in key}


def rows():
    """(flags, what takes their place, remark) of every line of a table."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_is_the_table_that_train_py_answers_from():
    assert [tuple(row) for row in rows()] == list(reference_flags.FLAGS)


@pytest.mark.parametrize("name", FLAGS.split())
def test_every_flag_is_answered_with_what_it_is_here(name):
    # Hyphens and underscores, a value behind it or not.
    for given in (name, f"{name}=3", name.replace("-", "_").replace("__", "--", 1)):
        (answer,) = reference_flags.answers(["--workdir=x", given, "3"])
        flag = given.partition("=")[0]
        assert answer.startswith(f"{flag} is a flag of PyTorch's DeiT; ")
        keys = re.findall(r"--config\.([\w.]+\w)", answer)
        assert all(key in leaves_by_key(default_config()) for key in keys)
        assert keys or "not needed" in answer or "--workdir" in answer or "evaluate RUN" in answer


def test_every_flag_has_its_line():
    named = {flag for row in rows() for flag in re.findall(r"--[\w-]+", row[0])}
    assert set(FLAGS.split()) - named == set()


def test_every_key_exists():
    known = leaves_by_key(default_config())
    text = PAGE.read_text()
    names = re.findall(rf"`((?:{'|'.join(sorted(GROUPS))})\.\w+)", text)
    assert len(names) > 50
    assert [name for name in names if name not in known] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_line_answers(row):
    _, answer, *remark = row
    if answer == "not needed":
        # And says why.
        assert remark[0]
    else:
        assert re.search(r"`[\w.]+`|`--workdir`|sbatch|`python -m", answer), answer


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--epochs 300", "schedule.epochs"),
        ("--opt-eps 1e-8", "optimizer.eps"),
        ("--weight-decay 0.05", "optimizer.weight_decay"),
        ("--lr 5e-4", "optimizer.learning_rate"),
        ("--drop-path 0.1", "model.drop_path_rate"),
        ("--model-ema-decay 0.99996", "ema.decay"),
        ("--warmup-lr 1e-6", "schedule.warmup_learning_rate"),
        ("--min-lr 1e-5", "schedule.final_learning_rate"),
        ("--decay-epochs 30", "schedule.decay_epochs"),
        ("--lr-noise-pct 0.67", "schedule.noise_limit"),
        ("--aa rand-m9-mstd0.5-inc1", "augment.policy"),
        ("--smoothing 0.1", "training.label_smoothing"),
        ("--reprob 0.25", "augment.erasing_probability"),
        ("--mixup 0.8", "mix.mixup_alpha"),
        ("--mixup-switch-prob 0.5", "mix.switch_probability"),
        ("--eval-crop-ratio 0.875", "data.eval_crop_ratio"),
        ("--teacher-model regnety_160", "teacher.name"),
        ("--distillation-alpha 0.5", "distillation.weight"),
    ],
)
def test_defaults_are_the_references_where_the_table_does_not_say_otherwise(flag, key):
    (row,) = [row for row in rows() if f"`{flag}`" in row[0]]
    assert f"`{key}`" in row[1]
    value, wanted = leaves_by_key(default_config())[key], flag.split()[1]
    assert str(value) == wanted or float(value) == float(wanted)
