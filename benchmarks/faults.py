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
import random
import shutil
import signal
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.interrupted_run import (
    Start,
    make_images,
    newest_checkpoint,
    outcome,
    steps_taken,
    temporary_files,
)
from benchmarks.tally import Tally, write_table

SIGNALS_PER_RUN = 10


@dataclass
class Signals(Tally):
    """What came of the signals of one kind."""

    workers: int = 0
    signals: int = 0
    processes_left: int = 0
    segments_left: int = 0
    files_left: int = 0
    tracebacks: int = 0
    wrong_codes: int = 0

    def cells(self) -> list[object]:
        """Return the cells of its row, in the order of `COLUMNS`."""
        slowest = f"{max(self.seconds):.1f}" if self.seconds else "-"
        middle = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        return [
            self.kind,
            self.workers,
            f"{self.signals} in {self.runs} runs",
            self.before_first_step,
            self.other_ends,
            self.lost,
            f"{self.processes_left}, {self.segments_left}, {self.files_left}",
            self.tracebacks,
            self.wrong_codes,
            f"{middle} ({slowest})",
        ]


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


def interrupt_runs(
    kind: str, workers: int, signals: int, folder: Path, moments: random.Random
) -> Signals:
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
    tally = Signals(kind, workers=workers)
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


def judge(tally: Signals, start: Start, before: int) -> None:
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
    wrong = start.code not in right and not finished
    tally.wrong_codes += wrong
    segments = start.left_segments()
    tally.segments_left += len(segments)
    if start.left_processes or segments or "Traceback" in start.output or wrong:
        tally.problems.append(
            f"code {start.code}, {start.left_processes} processes, segments {segments}, after "
            f"step {taken}:\n{start.output[-1500:]}"
        )


def compare(tally: Signals, ended: Start, expected: dict) -> None:
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
    tally.other_end(f"{ended.workdir}: another end, code {ended.code}\n{ended.output[-1500:]}")


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
    tallies: list[Signals] = []
    for place, workers in enumerate(arguments.workers):
        for kind, total in counts.items():
            share = len(range(place, total, len(arguments.workers)))
            moments = random.Random(f"{arguments.seed} {kind} {workers}")
            tallies.append(interrupt_runs(kind, workers, share, folder, moments))
            problems = [f"{tally.kind}: {text}" for tally in tallies for text in tally.problems]
            table = write_table(folder, COLUMNS, tallies, problems)
    print(table)
    lost = sum(sum(tally.steps_lost) for tally in tallies if tally.kind != "SIGKILL")
    return 1 if problems or lost else 0


if __name__ == "__main__":
    sys.exit(main())
