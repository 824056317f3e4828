"""What a residual stream in bfloat16 changes: gradients, a few steps, and whole runs on digits.

    python -m benchmarks.residual --seeds 5 --pairs 20 --output runs/residual

Products are in bfloat16 on both sides. The first table is of a small transformer of twelve blocks,
against the same in float32 throughout: how far its first gradient is from that, and its weights
after some steps, over the way that these have gone. Each kind is compiled once, for all seeds. The
second is of runs of `train.py` as in docs/parity.md, in pairs: both of a seed have the same weights
at first, the same order and the same augmentation. Finished runs in --output are kept. Each takes
less than a minute on one CPU core, the first table seven.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.hardware import describe
from benchmarks.parity_page import MARGINS, paired, quantities, verdict
from benchmarks.statistical_parity import overrides, read_ours, recipe
from deit_jax.cli.arguments import Parser, between, parse, positive_count
from deit_jax.data.formats.digits import open_digits
from deit_jax.models.functional import ModelFunction, abstract
from deit_jax.models.registry import model_spec
from deit_jax.reports.experiments import spread
from deit_jax.schema import Config
from deit_jax.training.example import Batch
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import create_state
from deit_jax.training.step import make_train_step
from deit_jax.trees import Tree

KINDS = ("float32", "bfloat16")
_SIZES = dict(width=192, depth=12, num_heads=3)
_BATCH = 64
_LAST_STEPS = 50


class Way(NamedTuple):
    """Of a model in some precision: its weights before, their first gradient, after the steps."""

    before: np.ndarray
    gradient: np.ndarray
    after: np.ndarray
    loss: float


def going(dtype: str, residual: str) -> Callable[[int, int], Way]:
    """Return what trains the small transformer on digits, from a seed for some steps.

    Its programs are compiled once, at the first seed.
    """
    config = recipe("none", 0, Path())
    config.training.batch_size, config.schedule.warmup_epochs = _BATCH, 1.0
    config.optimizer.learning_rate = 1e-3
    spec = model_spec(config.model.name).resized(**_SIZES)
    types = dict(dtype=jnp.dtype(dtype), residual_dtype=jnp.dtype(residual))
    size = dict(num_classes=10, image_size=config.model.image_size)
    build = partial(_build, spec, **size, **types)
    student, params, _ = abstract(build)
    optimizer = make_optimizer(config.optimizer, params)
    create = jax.jit(partial(create_state, build, optimizer, ema=False))
    step = jax.jit(make_train_step(student, None, optimizer, Config.of(config), steps_per_epoch=20))
    ask = jax.jit(jax.value_and_grad(partial(_loss, student)))
    images, labels = _digits()
    asked = images[:_BATCH].astype(np.float32) / 127.5 - 1, labels[:_BATCH]

    def go(seed: int, steps: int) -> Way:
        state = create(jax.random.key(seed))
        before = state["params"]
        _, gradient = ask(before, *asked)
        for number in range(steps):
            state = step(state, {}, _batch(images, labels, seed * steps + number))
        loss, _ = ask(state["params"], *asked)
        return Way(_flat(before), _flat(gradient), _flat(state["params"]), float(loss))

    return go


def _build(spec: Any, rngs: Any, **options: Any) -> Any:
    return spec.build(rngs=rngs, **options)


def _loss(student: ModelFunction, params: Tree, images: Any, labels: Any) -> jax.Array:
    logits = student.head_logits(params, {}, images)[0][0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _digits() -> tuple[np.ndarray, np.ndarray]:
    source = open_digits("train")
    examples = [source[i] for i in range(len(source))]
    return np.stack([e.image for e in examples]), np.array([e.label for e in examples], np.int32)


def _batch(images: np.ndarray, labels: np.ndarray, number: int) -> Batch:
    """Draw a batch; its number also decides the augmentation, whose seed is the recipe's."""
    rows = np.random.default_rng(number).choice(len(images), _BATCH, replace=False)
    zeros = np.zeros(_BATCH, np.int32)
    epoch, index = zeros + number, rows.astype(np.int32)
    return dict(image=images[rows], label=labels[rows], epoch=epoch, index=index, copy=zeros)


def _flat(tree: Tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def near_table(seeds: int, steps: int) -> str:
    """Return distances to float32, as means over seeds and the largest of them."""
    lines = [
        f"| products, residual | gradient | weights after {steps} steps | loss there |",
        "|---|---|---|---|",
    ]
    exact = _ways("float32", "float32", seeds, steps)
    for residual in KINDS:
        ways = _ways("bfloat16", residual, seeds, steps)
        both = list(zip(ways, exact, strict=True))
        gradients = [_distance(a.gradient - b.gradient, b.gradient) for a, b in both]
        weights = [_distance(a.after - b.after, b.after - b.before) for a, b in both]
        losses = [abs(a.loss - b.loss) for a, b in both]
        cells = [f"{np.mean(x):.2g} (at most {max(x):.2g})" for x in (gradients, weights, losses)]
        lines.append(f"| bfloat16, {residual} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ways(dtype: str, residual: str, seeds: int, steps: int) -> list[Way]:
    go = going(dtype, residual)
    return [go(seed, steps) for seed in range(seeds)]


def _distance(difference: np.ndarray, of: np.ndarray) -> float:
    return float(np.linalg.norm(difference) / np.linalg.norm(of))


def run(residual: str, seed: int, output: Path) -> dict[str, Any]:
    """Run `train.py`, unless the run has finished before; return its result."""
    workdir = output / f"{residual}-{seed}"
    if not (workdir / "result.json").is_file():
        kinds = {"model.dtype": "bfloat16", "model.residual_dtype": residual}
        values = overrides("none", seed, Path()) | kinds
        flags = [f"--config.{key}={value}" for key, value in values.items()]
        command = [sys.executable, "train.py", "--config=configs/digits.py:none"]
        subprocess.run([*command, f"--workdir={workdir}", *flags], check=True)
    return read_ours(workdir, _LAST_STEPS)


def runs_table(seeds: int, output: Path) -> str:
    """Return what runs end with, by the type of their residual stream."""
    runs = [{kind: run(kind, seed, output) for kind in KINDS} for seed in range(seeds)]
    lines = [
        "| quantity | float32 | bfloat16 | difference (95 %) | margin | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for quantity in quantities("none"):
        wide, narrow = ([quantity.read(pair[kind]) for pair in runs] for kind in KINDS)
        between_them, margin = paired(narrow, wide), MARGINS[quantity.unit]
        bounds = "{:+.3f} ({:+.3f} to {:+.3f})".format(*between_them)
        cells = [quantity.name, *(f"{spread(x).mean:.3f}" for x in (wide, narrow)), bounds]
        lines.append(f"| {' | '.join([*cells, str(margin), verdict(between_them, margin)])} |")
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=between(2), default=5, help="of the first table; 0, 1, ...")
    parser.add_argument("--pairs", type=between(2), default=5, help="of runs; seeds 0, 1, ...")
    parser.add_argument("--steps", type=positive_count, default=50, help="of the first table")
    parser.add_argument("--output", type=Path, default=Path("runs/residual"), help="for the runs")
    return parser


def main() -> int:
    """Print the machine and both tables."""
    arguments = parse(_parser())
    about = f"{describe(('jax', 'jaxlib', 'flax'))}."
    print(f"{about}\n\n{near_table(arguments.seeds, arguments.steps)}", flush=True)
    print("\n" + runs_table(arguments.pairs, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
