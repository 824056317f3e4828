"""Repeat the digits demo with several seeds: the figures of docs/digits.md.

    python -m benchmarks.digits --seeds 5 --output runs/digits-seeds

Every seed draws its own labelled images, teacher and students; all runs are those of `make demo`
with another `--config.seed`. Finished runs are kept when the command is given again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from deit_jax.cli.arguments import Parser, parse, positive_count

EXPERIMENTS = ("teacher", "none", "soft", "hard")


def train(what: str, workdir: Path, teacher: Path, seed: int, flags: list[str]) -> None:
    """Run `train.py` once; a finished run only reports itself again."""
    command = [
        sys.executable,
        "train.py",
        f"--config=configs/digits.py:{what}",
        f"--workdir={workdir}",
        f"--config.seed={seed}",
        f"--config.teacher.weights={teacher}",
        *flags,
    ]
    subprocess.run(command, check=True)


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=positive_count, default=5, help="how many; seeds 0, 1, ...")
    parser.add_argument("--output", type=Path, default=Path("runs/digits-seeds"))
    parser.add_argument("flags", nargs="*", help="more flags for train.py, after --")
    return parser


def main() -> int:
    """Train all seeds one after the other, then write the report."""
    arguments = parse(_parser())
    for seed in range(arguments.seeds):
        teacher = arguments.output / f"teacher-{seed}"
        for what in EXPERIMENTS:
            train(what, arguments.output / f"{what}-{seed}", teacher, seed, arguments.flags)
    students = [
        str(arguments.output / f"{what}-{seed}")
        for what in EXPERIMENTS[1:]
        for seed in range(arguments.seeds)
    ]
    report = [sys.executable, "-m", "deit_jax", "report", *students]
    return subprocess.run([*report, f"--output={arguments.output / 'report'}"]).returncode


if __name__ == "__main__":
    sys.exit(main())
