"""Train for many steps with many saves and evaluations, and see whether memory grows.

    python -m benchmarks.soak --steps 20000 --output runs/soak

One small run, which saves every 50 steps and evaluates every 200. From outside, every second or so:
the step that it has logged, its resident memory, and the part of that which is nobody's file. What
is told is the growth by a line fitted (Theil and Sen: the median of all slopes between two samples)
to what came after a warm-up of a quarter. `--arenas` and the variables of the C library's allocator
tell growth by fragments from a leak. Linux only.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.interrupted_run import Start, make_images, steps_taken

# Four steps to each of the epochs of `interrupted_run`'s images.
BATCH_SIZE, STEPS_PER_EPOCH = 24, 4
SAVE_EVERY, EVALUATE_EVERY = 50, 200
_WARM_UP = 0.25
# Slopes are taken between so many samples, evenly spread: all pairs of thousands are millions.
_MOST_POINTS = 400


@dataclass(frozen=True)
class Sample:
    """What was seen of the run at one time; sizes in MB (10^6 bytes)."""

    seconds: float
    step: int
    resident: float
    anonymous: float


def soak(
    workdir: Path, steps: int, every_seconds: float, flags: Sequence[str], **environment: str
) -> list[Sample]:
    """Run it to the end; return the samples.

    Args:
        workdir: of the run; a new one.
        steps: of training.
        every_seconds: how often to look.
        flags: further ones of `train.py`.
        environment: further variables.

    Raises:
        RuntimeError: the run did not end well.
    """
    start = Start(
        workdir,
        0,
        [
            f"--config.training.batch_size={BATCH_SIZE}",
            f"--config.schedule.epochs={steps / STEPS_PER_EPOCH}",
            f"--config.evaluation.every_epochs={EVALUATE_EVERY / STEPS_PER_EPOCH}",
            f"--config.checkpoint.every_steps={SAVE_EVERY}",
            f"--config.log.every_steps={SAVE_EVERY}",
            "--config.log.tensorboard=True",
            *flags,
        ],
        **environment,
    )
    samples: list[Sample] = []
    running, seconds = True, 0.0
    while running:
        running, seconds = start.run(every_seconds)
        sizes = _sizes(start.pid) if running else {}
        if sizes:
            samples.append(Sample(seconds, steps_taken(workdir), sizes["VmRSS"], sizes["RssAnon"]))
    if start.code:
        raise RuntimeError(start.output)
    return samples


def growth(samples: Sequence[Sample], name: str) -> float:
    """Return MB for each 1,000 steps, after the warm-up, of a field of the samples."""
    kept = settled(samples)
    kept = kept[:: max(1, len(kept) // _MOST_POINTS)]
    slopes = [
        (getattr(b, name) - getattr(a, name)) / (b.step - a.step)
        for a, b in itertools.combinations(kept, 2)
        if b.step > a.step
    ]
    return 1000 * statistics.median(slopes)


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples after the warm-up."""
    last = samples[-1].step
    return [sample for sample in samples if sample.step >= _WARM_UP * last]


def _sizes(process: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in lines)
    return {name: int(value.split()[0]) / 1e3 * 1.024 for name, value in pairs if "kB" in value}


def main() -> int:
    """Run it, write the samples, print the growth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="between two looks")
    parser.add_argument("--arenas", type=int, help="MALLOC_ARENA_MAX of the run")
    parser.add_argument("--output", type=Path, default=Path("runs/soak"))
    parser.add_argument("flags", nargs="*", help="further ones of train.py, after --")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    make_images(folder / "images")
    environment = {"MALLOC_ARENA_MAX": str(arguments.arenas)} if arguments.arenas else {}
    samples = soak(
        folder / "run", arguments.steps, arguments.seconds, arguments.flags, **environment
    )
    (folder / "samples.json").write_text(json.dumps([asdict(sample) for sample in samples]))
    kept = settled(samples)
    for name in ("resident", "anonymous"):
        values = [getattr(sample, name) for sample in kept]
        print(
            f"{name}: {values[0]:.0f} MB at step {kept[0].step:,}, {values[-1]:.0f} MB at step "
            f"{kept[-1].step:,}, most {max(values):.0f} MB; "
            f"{growth(samples, name):+.2f} MB for each 1,000 steps"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
