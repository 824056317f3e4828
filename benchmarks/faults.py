"""Interrupt training at random moments, and compare what comes of it with a run left alone.

    python -m benchmarks.faults --kills 60 --terms 60 --interrupts 20 --output runs/faults

A small run, half of the time with reader processes, is interrupted at moments drawn
uniformly from its whole life: start, compilation, steps, evaluations, saves. The same command is
given again until there have been a few signals, then once more to the end. Counted are: ends that
differ in a bit of weights, averages or metrics; steps that had been taken but were not saved;
processes, shared memory and temporary files that were left; tracebacks; seconds until it had ended.

SIGKILL goes to the main process; SIGTERM to that or, every other time, to all processes as many
schedulers do; SIGINT to all processes, as a terminal does. Linux only.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
EXPERIMENT = "configs/digits.py:none"
FLAGS = (
    "--config.data.source=folder",
    "--config.data.eval_split=val",
    "--config.data.train_images=0",
    "--config.model.name=deit_micro_patch4_16",
    "--config.model.num_classes=4",
    "--config.training.batch_size=32",
    "--config.schedule.epochs=30",
    "--config.schedule.warmup_epochs=2",
    "--config.evaluation.batch_size=256",
    "--config.evaluation.every_epochs=12",
    "--config.checkpoint.every_steps=20",
    # The log then tells every step that was taken.
    "--config.log.every_steps=1",
    "--config.log.tensorboard=False",
)
IMAGES = {"train": 96, "val": 256}
# A shell's background jobs are started with SIGINT ignored, which is inherited.
_AS_FROM_A_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_TOKEN = "DEIT_JAX_FAULTS"
_SHARED = Path("/dev/shm")
SIGNALS_PER_RUN = 10


class Start:
    """One start of `train.py`: the process, its descendants, the shared memory they use."""

    def __init__(self, workdir: Path, workers: int) -> None:
        """Start it; images and compilation cache are shared with the runs beside it."""
        self.workdir = workdir
        images, cache = workdir.with_name("images"), workdir.with_name("cache")
        self.token = uuid.uuid4().hex
        self.temporary = workdir.with_name(f"{workdir.name}.temporary")
        self.temporary.mkdir(parents=True, exist_ok=True)
        self._segments: set[str] = set()
        command = [
            "train.py",
            f"--config={EXPERIMENT}",
            f"--workdir={workdir}",
            f"--config.data.directory={images}",
            f"--config.data.workers={workers}",
            *FLAGS,
        ]
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AS_FROM_A_TERMINAL, *command],
            cwd=ROOT,
            env={
                **os.environ,
                _TOKEN: self.token,
                "TMPDIR": str(self.temporary),
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, moment: float | None) -> tuple[bool, float]:
        """Wait for the moment, if it does not end before; return whether it hit, and seconds."""
        try:
            self._output, _ = self._process.communicate(timeout=moment)
            return False, time.monotonic() - self._begin
        except subprocess.TimeoutExpired:
            self._look_at_shared_memory()
            return True, time.monotonic() - self._begin

    def interrupt(self, number: signal.Signals, everywhere: bool) -> float:
        """Send the signal; return the seconds until the process had ended."""
        begin = time.monotonic()
        if everywhere:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        self._process.wait(timeout=600)
        seconds = time.monotonic() - begin
        # Descendants that live on would hold the pipe open: this is what is looked for.
        self.left_processes = self._wait_for_descendants()
        self._output = self._process.communicate()[0]
        return seconds

    @property
    def code(self) -> int:
        """Exit code; below 0 the signal that it died of."""
        return self._process.returncode

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._output

    def left_segments(self) -> list[str]:
        """Names in /dev/shm that this start used and that are there still."""
        prefixes = {name.rpartition("-")[0] for name in self._segments if "deit_jax-" in name}
        there = {path.name for path in _SHARED.iterdir()}
        started = {name for name in there if any(name.startswith(prefix) for prefix in prefixes)}
        return sorted((self._segments & there) | started)

    def _look_at_shared_memory(self) -> None:
        for process in self._descendants():
            try:
                maps = (process / "maps").read_text()
            except OSError:
                continue
            self._segments |= set(re.findall(r"/dev/shm/(\S+)", maps))

    def _descendants(self) -> Iterator[Path]:
        wanted = f"{_TOKEN}={self.token}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    yield process
            except OSError:
                continue

    def _wait_for_descendants(self, seconds: float = 10.0) -> int:
        """Return how many live on; they are ended, so that they do not disturb the next start."""
        deadline = time.monotonic() + seconds
        while (living := list(self._descendants())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in living:
            os.kill(int(process.name), signal.SIGKILL)
        return len(living)


@dataclass
class Tally:
    """What came of the signals of one kind."""

    kind: str
    workers: int
    signals: int = 0
    runs: int = 0
    before_first_step: int = 0
    finished_all_the_same: int = 0
    other_ends: int = 0
    steps_lost: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    processes_left: int = 0
    segments_left: int = 0
    files_left: int = 0
    tracebacks: int = 0
    wrong_codes: int = 0
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Return a line of the table."""
        slowest = f"{max(self.seconds):.1f}" if self.seconds else "-"
        middle = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        cells = [
            self.kind,
            self.workers,
            f"{self.signals} in {self.runs} runs",
            self.before_first_step,
            self.other_ends,
            f"{sum(self.steps_lost)} (most {max(self.steps_lost, default=0)})",
            f"{self.processes_left}, {self.segments_left}, {self.files_left}",
            self.tracebacks,
            self.wrong_codes,
            f"{middle} ({slowest})",
        ]
        return f"| {' | '.join(map(str, cells))} |"


COLUMNS = (
    "signal",
    "workers",
    "signals",
    "before the first step",
    "other ends",
    "steps lost",
    "processes, segments, files left",
    "tracebacks",
    "wrong exit codes",
    "seconds to end, median (most)",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def interrupt_runs(
    kind: str, workers: int, signals: int, folder: Path, moments: random.Random
) -> Tally:
    """Interrupt runs with so many signals of a kind, and let each run end.

    Args:
        kind: SIGKILL, SIGTERM or SIGINT.
        workers: reader processes.
        signals: how many must hit a living process.
        folder: for the runs; those that ended right are removed.
        moments: draws the times.
    """
    number = signal.Signals[kind]
    expected, life = undisturbed(folder, workers)
    tally = Tally(kind, workers)
    while tally.signals < signals:
        workdir, ended = folder / f"{kind}-{workers}-{tally.runs}", None
        for _ in range(min(SIGNALS_PER_RUN, signals - tally.signals)):
            start = Start(workdir, workers)
            before = newest_checkpoint(workdir)
            hit, _ = start.run(moments.uniform(0, life))
            if not hit:
                ended = start
                break
            everywhere = kind == "SIGINT" or (kind == "SIGTERM" and tally.signals % 2 == 1)
            tally.seconds.append(start.interrupt(number, everywhere))
            tally.signals += 1
            judge(tally, start, before)
            if (workdir / "result.json").is_file():
                break
        if ended is None:
            ended = Start(workdir, workers)
            ended.run(None)
        compare(tally, ended, expected)
        print(tally.row(), flush=True)
    return tally


def judge(tally: Tally, start: Start, before: int) -> None:
    """Count what a signal left behind."""
    taken, saved = steps_taken(start.workdir), newest_checkpoint(start.workdir)
    tally.steps_lost.append(max(0, taken - saved))
    tally.before_first_step += taken <= before
    tally.processes_left += start.left_processes
    tally.tracebacks += "Traceback" in start.output
    number = signal.Signals[tally.kind]
    right = {-number} if number == signal.SIGKILL else {128 + number}
    if not start.output:
        # Before the first line of the program.
        right.add(-number)
    # Between the last step and the end it goes on to its result.
    finished = start.code == 0 and (start.workdir / "result.json").is_file()
    tally.finished_all_the_same += finished
    if start.code not in right and not finished:
        tally.wrong_codes += 1
    if segments := start.left_segments():
        tally.segments_left += len(segments)
    if start.left_processes or segments or "Traceback" in start.output or tally.wrong_codes:
        tally.problems.append(
            f"code {start.code}, {start.left_processes} processes, segments {segments}, after "
            f"step {taken}:\n{start.output[-1500:]}"
        )


def compare(tally: Tally, ended: Start, expected: dict) -> None:
    """Compare a run that has ended with the one left alone."""
    tally.runs += 1
    if ended.code == 0 and outcome(ended.workdir) == expected:
        files = temporary_files(ended.workdir)
        tally.files_left += len(files)
        if files:
            tally.problems.append(f"left: {files}")
        shutil.rmtree(ended.workdir)
        shutil.rmtree(ended.temporary)
        return
    tally.other_ends += 1
    tally.problems.append(
        f"{ended.workdir}: another end, code {ended.code}\n{ended.output[-1500:]}"
    )


def undisturbed(folder: Path, workers: int) -> tuple[dict, float]:
    """Return what a run ends with when nothing disturbs it, and how long a start takes."""
    workdir = folder / f"undisturbed-{workers}"
    if not (workdir / "result.json").is_file():
        make_images(folder / "images")
        # Once to fill the compilation cache, once to see how long a start takes.
        warm = Start(workdir.with_name("first"), workers)
        warm.run(None)
        if warm.code:
            raise RuntimeError(warm.output)
        start = Start(workdir, workers)
        _, life = start.run(None)
        (workdir / "life").write_text(str(life))
        shutil.rmtree(folder / "first")
    return outcome(workdir), float((workdir / "life").read_text())


def make_images(folder: Path) -> None:
    """Write noise in four classes."""
    noise = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for number in range(count):
            path = folder / split / "abcd"[number % 4] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (24, 20, 3), np.uint8)).save(path)


def outcome(workdir: Path) -> dict:
    """What must be the same: digest, evaluations, and every line of the log."""
    result = json.loads((workdir / "result.json").read_text())
    kept = {key: result[key] for key in ("steps", "digest", "evaluation", "best", "skipped_steps")}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return {**kept, "lines": lines}


def steps_taken(workdir: Path) -> int:
    """The last step that the log has a whole line of; 0 without any."""
    steps = [0]
    if (workdir / "metrics.jsonl").is_file():
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            try:
                steps.append(json.loads(line)["step"])
            except ValueError:
                continue
    return max(steps)


def newest_checkpoint(workdir: Path) -> int:
    """The newest step on disk; 0 without any."""
    names = [path.name for path in workdir.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def temporary_files(workdir: Path) -> list[str]:
    """Files of a finished run that nobody needs, in its directory and in TMPDIR."""
    in_run = [
        path for path in workdir.rglob("*") if re.search(r"tmp|temp|trash|partial", path.name)
    ]
    others = list(workdir.with_name(f"{workdir.name}.temporary").iterdir())
    return [str(path) for path in (*in_run, *others)]


def main() -> int:
    """Interrupt with and without workers; print and write the table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60, help="how many SIGKILLs")
    parser.add_argument("--terms", type=int, default=60, help="how many SIGTERMs")
    parser.add_argument("--interrupts", type=int, default=20, help="how many Ctrl-Cs")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="reader processes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=Path("runs/faults"))
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    counts = {
        "SIGTERM": arguments.terms,
        "SIGINT": arguments.interrupts,
        "SIGKILL": arguments.kills,
    }
    tallies = []
    for place, workers in enumerate(arguments.workers):
        for kind, total in counts.items():
            share = len(range(place, total, len(arguments.workers)))
            moments = random.Random(f"{arguments.seed} {kind} {workers}")
            tallies.append(interrupt_runs(kind, workers, share, folder, moments))
            problems = [f"{tally.kind}: {text}" for tally in tallies for text in tally.problems]
            (folder / "problems.txt").write_text("\n\n".join(problems))
            table = "\n".join([HEAD, *(tally.row() for tally in tallies)])
            (folder / "table.md").write_text(f"{table}\n")
    print(table)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
