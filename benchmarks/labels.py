"""What kept labels save: train steps with the teacher inside, filling and reading, in turn."""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from benchmarks import programs
from benchmarks.arguments import check_outputs, names
from benchmarks.cases import DTYPES
from benchmarks.hardware import LoadMeter, describe
from benchmarks.report import table
from benchmarks.timing import speedup, spread
from deit_jax.cli.arguments import Parser, parse, positive_count
from deit_jax.config.defaults import default_config
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.schema import Config
from deit_jax.schema.images import IMAGENET_MEAN, IMAGENET_STD
from deit_jax.seeds import seed_key
from deit_jax.sharding import create_mesh, put_batch, replicated
from deit_jax.training.distillation.label_store import LabelStore
from deit_jax.training.distillation.label_stream import LabelStream
from deit_jax.training.distillation.labels import Kept
from deit_jax.training.distillation.open_labels import OpenLabels
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.lessons import Lessons
from deit_jax.training.programs import build_programs
from deit_jax.training.state import TrainState

_STUDENTS = ",".join(f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base"))
_INSIDE = "teacher inside"
_METHOD = """\
Whole train steps with the recipe's augmentation, of random weights and one batch of random pixels,
hard labels. **Inside**: without `teacher.labels`. **Filling**: answers are fetched and, at the end
of each turn, written. **Reading**: they are read from parts on disk. The three take turns in one
process; figures are medians over the rounds, lowest and highest in brackets; ratios are formed
round by round, **above 1 is faster than with the teacher inside**. The ratio of processor time is
what others on the machine disturb less; on an accelerator it says nothing.
"""
_HEADER = ("student", "step", "steps/s", "times inside", "of processor time", "others' load")


def main(argv: list[str] | None = None) -> int:
    """Measure and print a page; return the process's exit code."""
    parser = _parser()
    args = parse(parser, argv)
    try:
        for name in (*args.students, args.teacher):
            model_spec(name)
            # Raises where no patches fit into the images.
            abstract(model_builder(name, image_size=args.image_size))
        check_outputs([args.markdown])
        if args.batch_size % (2 * jax.device_count()):
            raise ValueError(
                f"A batch of {args.batch_size} images, mixed in pairs, cannot be split over "
                f"{jax.device_count()} device(s); pass a multiple of {2 * jax.device_count()} as "
                "--batch-size."
            )
    except ValueError as error:
        parser.error(str(error))
    rows = []
    for student in args.students:
        rows += _measure(_config(student, args), args)
        # The programs of the next one need the memory.
        gc.collect()
    page = "\n".join(
        [
            f"# Kept labels, teacher {args.teacher}",
            "",
            f"{describe()}; batch {args.batch_size}, {args.image_size} px, {args.dtype}, "
            f"{args.rounds} rounds.",
            "",
            *_METHOD.splitlines(),
            "",
            table([*_HEADER], rows),
        ]
    )
    print(page)
    if args.markdown:
        args.markdown.write_text(page + "\n", encoding="utf-8")
    return 0


def _config(student: str, args: argparse.Namespace) -> Config:
    values = default_config()
    values.model.update(name=student, dtype=args.dtype, image_size=(args.image_size,) * 2)
    values.teacher.update(name=args.teacher, dtype=args.dtype)
    values.distillation.kind = "hard"
    values.training.batch_size = args.batch_size
    values.mix.group = 0
    return Config.of(values)


@dataclass
class _Side:
    """One way of taking steps, and where it has got to."""

    name: str
    step: Callable[[int, TrainState], TrainState]
    state: TrainState
    end: Callable[[], None] = lambda: None
    taken: int = 0

    def turn(self, steps: int) -> np.ndarray:
        """Take steps; return the seconds of one, by the clock and of the processor."""
        begin = _clocks()
        for _ in range(steps):
            self.state = self.step(self.taken, self.state)
            self.taken += 1
        jax.block_until_ready(self.state["step"])
        self.end()
        return (_clocks() - begin) / steps


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _measure(config: Config, args: argparse.Namespace) -> list[list[str]]:
    """Let the three take turns; return a row of each."""
    load = LoadMeter()
    with _sides(config) as sides:
        for side in sides:
            # The first compiles.
            side.turn(2)
        rounds = [[side.turn(args.steps) for side in sides] for _ in range(args.rounds)]
    others, rows = load.others(), []
    for number, side in enumerate(sides):
        ratios = [
            speedup([r[number][clock] for r in rounds], [r[0][clock] for r in rounds])
            for clock in (0, 1)
        ]
        rate = spread([1 / r[number][0] for r in rounds])
        cells = [f"{value:.4g}" for value in (rate, *ratios)]
        rows.append([config.model.name, side.name, *cells, f"{100 * others:.0f} %"])
    return rows


@contextmanager
def _sides(config: Config) -> Iterator[list[_Side]]:
    mesh, size = create_mesh(), config.model.image_size
    function, make = programs.frozen(
        config.teacher.name, config.teacher.dtype, num_classes=1000, image_size=size
    )
    colours = (IMAGENET_MEAN, IMAGENET_STD)
    view = TeacherView(function, colours, colours, size)
    params = jax.device_put(make(), replicated(mesh))
    built = build_programs(config, mesh, view, steps_per_epoch=1000.0)
    batch = put_batch(_batch(config), mesh)
    with tempfile.TemporaryDirectory() as folder:
        filling, reading = (
            Lessons(
                _labels(Path(folder) / name, config, whole=whole),
                built.steps,
                lambda: (built.steps.answering(view, Kept.of(config)), params),
            )
            for name, whole in (("filling", False), ("reading", True))
        )
        states = (built.create_state(seed_key(0), {}) for _ in range(3))
        yield [
            _Side(_INSIDE, lambda _, state: built.train_step(state, params, batch), next(states)),
            _Side("filling", lambda n, s: filling.take(n, s, batch), next(states), filling.save),
            _Side("reading", lambda n, s: reading.take(n, s, batch), next(states)),
        ]


def _labels(folder: Path, config: Config, *, whole: bool) -> OpenLabels:
    """Return labels of which none are there, or all of the steps that may be taken."""
    kept, batch = Kept.of(config), config.training.batch_size
    store, steps = LabelStore(folder, LabelStream({}), kept.shapes(batch)), np.arange(1 << 16)
    if whole:
        for step in steps[:: store.steps_per_part]:
            store.part(int(step) // store.steps_per_part)["present"][:] = True
            store.add(int(step), {"label": np.zeros(batch, np.uint16)})
            store.save()
    return OpenLabels(store, kept, None, {}, steps[:0] if whole else steps)


def _batch(config: Config) -> dict[str, np.ndarray]:
    rng, count = np.random.default_rng(0), config.training.batch_size
    return {
        "image": rng.integers(0, 256, (count, *config.model.image_size, 3), np.uint8),
        "label": rng.integers(0, 1000, count).astype(np.int32),
        **{name: np.arange(count, dtype=np.int32) for name in ("epoch", "index", "copy")},
    }


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--students", type=names(), default=names()(_STUDENTS), help="default DeiT-Ti, S and B")
    add("--teacher", default="regnety_160", help="a registered model (default regnety_160)")
    add("--image-size", type=positive_count, default=224, help="pixels (default 224)")
    add("--batch-size", type=positive_count, default=256, help="default 256")
    add("--dtype", default="bfloat16", choices=DTYPES, help="of both networks (default bfloat16)")
    add("--rounds", type=positive_count, default=7, help="of turns (default 7)")
    add("--steps", type=positive_count, default=1, help="of a turn (default 1)")
    add("--markdown", type=Path, metavar="FILE", help="write the page there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
