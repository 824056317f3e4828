"""Train the same small transformer here and in PyTorch, many seeds, no draw in common.

    python -m benchmarks.statistical_parity --seeds 5 --output runs/parity \
        --markdown docs/parity.md

Recipe and images are the same on both sides, weights at the start, order, crops and mixing are each
side's own. What is left to compare is what a user sees: accuracy and loss at the end, as means over
seeds, with Welch's confidence interval of their difference. Finished runs in --output are kept when
the command is given again. Each run takes about half a minute on one CPU core.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks.arguments import names
from benchmarks.parity_page import Measured, write_page
from deit_jax.cli.arguments import Parser, between, parse

KINDS = ("none", "hard", "soft")
# Beside what configs/digits.py says: all training images, coarser patches, a shorter run. Flags for
# train.py and the configuration that PyTorch reads are both made of it. The second part is what the
# PyTorch side cannot follow if the demo changes, and is fixed for that reason.
_OVERRIDES: dict[str, Any] = {
    "data.train_images": 0,
    "schedule.epochs": 120.0,
    "schedule.warmup_epochs": 5.0,
    "evaluation.every_epochs": 120.0,
    "log.every_steps": 1,
    "checkpoint.every_steps": 1000,
    "data.crop": "none",
    "data.repeats": 1,
    "data.eval_split": "test",
    "augment.crop_padding": 2,
    "augment.crop_mode": "constant",
    "augment.flip": 0.0,
    "augment.policy": "",
    "augment.color_jitter": 0.0,
    "augment.erasing_probability": 0.0,
    "mix.group": 0,
    "model.drop_path_rate": 0.0,
    "model.drop_rate": 0.0,
    "training.batch_size": 96,
    "optimizer.name": "adamw",
    "optimizer.clip_norm": 0.0,
    "schedule.name": "cosine",
    "ema.decay": 0.99,
    "ema.warmup": True,
}
_LEARNING_RATE = {"teacher": 3e-2}
_STUDENT: dict[str, Any] = {"teacher.mean": (0.5, 0.5, 0.5), "teacher.std": (0.5, 0.5, 0.5)}
_TEACHER_SEED = 1000


def overrides(kind: str, seed: int, teacher: Path) -> dict[str, Any]:
    """Return the keys of one run that are not those of configs/digits.py."""
    rate = _LEARNING_RATE.get(kind, 1e-2)
    values = {**_OVERRIDES, "seed": seed, "optimizer.learning_rate": rate}
    if kind == "teacher":
        return values
    values["model.name"] = f"deit_micro{'' if kind == 'none' else '_distilled'}_patch4_16"
    return values if kind == "none" else {**values, **_STUDENT, "teacher.weights": str(teacher)}


def recipe(kind: str, seed: int, teacher: Path) -> ConfigDict:
    """Return the configuration of one run, as train.py sees it."""
    from configs.digits import get_config

    config = get_config(kind)
    config.update_from_flattened_dict(overrides(kind, seed, teacher))
    return config


def run_ours(kind: str, seed: int, teacher: Path, workdir: Path) -> None:
    """Run `train.py`, unless the run has finished before."""
    if (workdir / "result.json").is_file():
        return
    flags = [f"--config.{key}={value}" for key, value in overrides(kind, seed, teacher).items()]
    command = [sys.executable, "train.py", f"--config=configs/digits.py:{kind}"]
    subprocess.run([*command, f"--workdir={workdir}", *flags], check=True)


def run_torch(kind: str, seed: int, teacher: Path, file: Path) -> None:
    """Train in PyTorch, unless the run has finished before."""
    if file.is_file():
        return
    # Imported late: PyTorch's threads would slow down a train.py that runs meanwhile.
    from benchmarks.torch_training import load_teacher, train

    convnet = None if kind == "none" else load_teacher(teacher)
    result = train(recipe(kind, seed, teacher), convnet)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2))


def read_ours(workdir: Path, last_steps: int) -> dict[str, Any]:
    """Return losses and accuracies of a finished run in the form of the PyTorch side."""
    result = json.loads((workdir / "result.json").read_text())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"][-last_steps:]
    return {**result, "train_loss": sum(losses) / len(losses)}


def make_teacher(output: Path) -> Path:
    """Train the convnet here, once, and return its weights as a file that both sides read."""
    run, file = output / "teacher", output / "teacher.safetensors"
    run_ours("teacher", _TEACHER_SEED, file, run)
    if not file.is_file():
        convert = [sys.executable, "-m", "deit_jax", "convert", str(run), str(file)]
        subprocess.run([*convert, "--checkpoint=latest", "--layout=timm"], check=True)
    return file


def measure(kind: str, seeds: int, output: Path, teacher: Path) -> Measured:
    """Train all seeds of one kind on both sides."""
    ours, theirs = [], []
    for seed in range(seeds):
        workdir, file = output / f"{kind}-{seed}", output / f"torch-{kind}-{seed}.json"
        run_torch(kind, seed, teacher, file)
        theirs.append(json.loads(file.read_text()))
        run_ours(kind, seed, teacher, workdir)
        ours.append(read_ours(workdir, last_steps=theirs[-1]["last_steps"]))
    return Measured(kind, ours, theirs)


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # One run has no spread.
    parser.add_argument("--seeds", type=between(2), default=5, help="how many; seeds 0, 1, ...")
    parser.add_argument("--kinds", type=names(KINDS), default=KINDS, help="of none, hard, soft")
    parser.add_argument("--output", type=Path, default=Path("runs/parity"), help="for the runs")
    parser.add_argument("--markdown", type=Path, default=Path("docs/parity.md"), help="the page")
    return parser


def main() -> int:
    """Train what is missing and write the page."""
    arguments = parse(_parser())
    kinds = arguments.kinds
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    teacher = make_teacher(arguments.output) if set(kinds) - {"none"} else Path()
    measured = [measure(kind, arguments.seeds, arguments.output, teacher) for kind in kinds]
    facts = json.loads((arguments.output / f"{kinds[0]}-0" / "config.json").read_text())
    write_page(arguments.markdown, measured, facts, " ".join(sys.argv[1:]))
    print(f"Written: {arguments.markdown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
