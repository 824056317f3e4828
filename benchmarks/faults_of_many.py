"""Kill processes of a run of two at random moments; compare its end with a run left alone.

    python -m benchmarks.faults_of_many --kills 100 --output runs/faults_of_many

The small run of `benchmarks.faults`, in two processes, is hit by SIGKILL: when a step that is drawn
from those that are left has been taken, or every other time at a moment drawn uniformly from the
life of a start, most of which is importing and compiling. What is killed is process 1, process 0
(where all meet), or both at once; in a fourth kind the number of reader processes changes with
every start as well. The same command is given again until there have been a few kills, then once
more to the end. Counted are: ends that differ in a bit of weights, averages or metrics from the run
of two processes that was left alone; seconds until the other process had ended too; exit codes and
last lines of it that do not name the cause; what was left. Goodput is the time that the steps of
all runs take when nothing disturbs them,
divided by the time of all starts: of a run of seconds most is starting. Linux only.
"""

import argparse
import json
import random
import shutil
import signal
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.interrupted_run import (
    BATCH_SIZE,
    Start,
    make_images,
    newest_checkpoint,
    outcome,
    steps_taken,
    temporary_files,
)

KILLS_PER_RUN = 5
PROCESSES = 2
# Kind: which processes are killed, and the numbers of readers that the starts have in turn.
KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "process 1": ((1,), (0,)),
    "process 0": ((0,), (0,)),
    "both": ((0, 1), (0,)),
    "process 1, readers change": ((1,), (0, 2, 1)),
}
LOST = 4
# Of what must be over at once, killed or not; longer is a hang.
_PATIENCE_SECONDS = 60.0
_JOIN_SECONDS = 20.0
_POLL_SECONDS = 0.02
# A start that has not come to its step by then hangs; what is killed is told.
_LONGEST_SECONDS = 600.0


class Together:
    """One start of a run in several processes on this machine."""

    def __init__(self, workdir: Path, workers: int) -> None:
        """Start all of them."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.workdir = workdir
        self.begin = time.monotonic()
        self.members = [
            Start(
                workdir,
                workers,
                [f"--join_seconds={_JOIN_SECONDS:g}"],
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES=str(PROCESSES),
                JAX_PROCESS_ID=str(index),
            )
            for index in range(PROCESSES)
        ]

    def end_by(self, moment: float) -> bool:
        """Wait for all to end; return whether they had before so many seconds."""
        return all(
            not member.run(max(0.0, self.begin + moment - time.monotonic()))[0]
            for member in self.members
        )

    def end_or_reach(self, step: int) -> bool:
        """Wait until a step is logged; return whether all have ended before."""
        while steps_taken(self.workdir) < step and self.seconds < _LONGEST_SECONDS:
            if self.end_by(self.seconds + _POLL_SECONDS):
                return True
        return False

    def kill(self, which: Sequence[int]) -> float:
        """Kill some; return the seconds until the others had ended too."""
        begin = time.monotonic()
        for index in which:
            self.members[index].send(signal.SIGKILL)
        for member in self.members:
            member.collect(_PATIENCE_SECONDS)
        return max(member.ended for member in self.members) - begin

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.begin


@dataclass
class Tally:
    """What came of the kills of one kind."""

    kind: str
    kills: int = 0
    runs: int = 0
    before_first_step: int = 0
    other_ends: int = 0
    unnamed: int = 0
    aborted: int = 0
    left: int = 0
    useful: float = 0.0
    wall: float = 0.0
    steps_lost: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Return a line of the table."""
        seconds = self.seconds or [0.0]
        cells = [
            self.kind,
            f"{self.kills} in {self.runs} runs",
            self.before_first_step,
            self.other_ends,
            f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
            self.unnamed,
            self.aborted,
            f"{sum(self.steps_lost)} (most {max(self.steps_lost, default=0)})",
            self.left,
            f"{100 * self.useful / self.wall:.0f} %" if self.wall else "-",
        ]
        return f"| {' | '.join(map(str, cells))} |"


COLUMNS = (
    "killed",
    "kills",
    "before the first step",
    "other ends",
    "seconds until all had ended, median (most)",
    "cause not named",
    "ended by JAX's abort",
    "steps lost",
    "processes, files left",
    "goodput",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def kill_runs(kind: str, kills: int, folder: Path, moments: random.Random) -> Tally:
    """Kill processes of runs so many times, and let each run end."""
    which, readers = KINDS[kind]
    expected, life, stepping = undisturbed(folder)
    tally = Tally(kind)
    starts = 0

    def start(workdir: Path) -> Together:
        nonlocal starts
        starts += 1
        return Together(workdir, readers[starts % len(readers)])

    while tally.kills < kills:
        workdir, ended = folder / f"{kind.replace(' ', '-')}-{tally.runs}", None
        for _ in range(min(KILLS_PER_RUN, kills - tally.kills)):
            before = steps_taken(workdir)
            together = start(workdir)
            if tally.kills % 2:
                over = together.end_by(moments.uniform(0, life))
            else:
                over = together.end_or_reach(moments.randint(before + 1, expected["steps"]))
            if over:
                ended = together
                break
            tally.seconds.append(together.kill(which))
            tally.wall += together.seconds
            tally.kills += 1
            judge(tally, together, which, before)
            if (workdir / "result.json").is_file():
                break
        if ended is None:
            ended = start(workdir)
            ended.end_by(600)
        tally.wall += ended.seconds
        tally.useful += stepping
        compare(tally, ended, expected)
        print(tally.row(), flush=True)
    return tally


def judge(tally: Tally, together: Together, which: Sequence[int], before: int) -> None:
    """Count what a kill left behind, and what the others said."""
    taken = steps_taken(together.workdir)
    tally.steps_lost.append(max(0, taken - newest_checkpoint(together.workdir)))
    tally.before_first_step += taken <= before
    finished = (together.workdir / "result.json").is_file()
    for index, member in enumerate(together.members):
        tally.left += member.left_processes
        if index in which or (finished and member.code == 0):
            continue
        tally.aborted += member.code == -signal.SIGABRT
        last = member.output.strip().splitlines()[-1:]
        # One that was killed before it had come is missed by the other, which says so too.
        named = any(f"process {i} " in line for i in which for line in last)
        named |= any("processes have come" in line or "was not at" in line for line in last)
        if not named or member.code not in (LOST, 2):
            tally.unnamed += 1
            tally.problems.append(
                f"{tally.kind}: process {index}, code {member.code}, after step {taken}:\n"
                f"{member.output[-3000:]}"
            )


def compare(tally: Tally, ended: Together, expected: dict) -> None:
    """Compare a run that has ended with the one left alone."""
    tally.runs += 1
    codes = [member.code for member in ended.members]
    if codes == [0] * PROCESSES and outcome(ended.workdir) == expected:
        tally.left += len(temporary_files(ended.workdir))
        shutil.rmtree(ended.workdir)
        shutil.rmtree(ended.members[0].temporary)
        return
    tally.other_ends += 1
    said = "\n".join(member.output[-1500:] for member in ended.members)
    tally.problems.append(f"{ended.workdir}: another end, codes {codes}\n{said}")


def undisturbed(folder: Path) -> tuple[dict, float, float]:
    """Return what a run ends with, how long a start takes, and its steps, if nothing disturbs."""
    workdir = folder / "undisturbed"
    if not (workdir / "result.json").is_file():
        make_images(folder / "images")
        # Once to fill the compilation cache, once to see how long a start takes.
        for place in (folder / "first", workdir):
            together = Together(place, 0)
            if not together.end_by(600) or any(member.code for member in together.members):
                raise RuntimeError("\n".join(member.output for member in together.members))
        (workdir / "life").write_text(str(together.seconds))
        shutil.rmtree(folder / "first")
    expected = outcome(workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rates = [line["images_per_second"] for line in lines if line["split"] == "train"]
    stepping = expected["steps"] * BATCH_SIZE / statistics.median(rates)
    return expected, float((workdir / "life").read_text()), stepping


def main() -> int:
    """Kill in every way; print and write the table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=Path("runs/faults_of_many"))
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tallies = []
    for place, kind in enumerate(KINDS):
        share = len(range(place, arguments.kills, len(KINDS)))
        moments = random.Random(f"{arguments.seed} {kind}")
        tallies.append(kill_runs(kind, share, folder, moments))
        problems = [text for tally in tallies for text in tally.problems]
        (folder / "problems.txt").write_text("\n\n".join(problems))
        table = "\n".join([HEAD, *(tally.row() for tally in tallies)])
        (folder / "table.md").write_text(f"{table}\n")
    print(table)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
