"""Kill runs of one or two processes at random moments; compare their ends with undisturbed ones.

    python -m benchmarks.kills --kills 102 --output runs/kills

The small run of `benchmarks.faults` is hit by SIGKILL: when a step that is drawn from those that
are left has been taken, or every other time at a moment drawn uniformly from the life of a start,
most of which is importing and compiling. It is a run of one process, or of two of which process 1,
process 0 (where they meet) or both are killed; in some kinds the number of reader processes changes
with every start as well. The same command is given again until there have been a few kills, then
once more to the end. Counted are: ends that differ in a bit of weights, averages or metrics from
the run of as many processes that was left alone; seconds until the other process had ended too;
exit codes and last lines of it that do not name the cause; what was left. Goodput is the time that
the steps of all runs take when nothing disturbs them, divided by the time of all starts: of a run
of seconds most is starting. Linux only.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.interrupted_run import (
    BATCH_SIZE,
    make_images,
    newest_checkpoint,
    outcome,
    steps_taken,
    temporary_files,
)
from benchmarks.starts_together import Together
from benchmarks.tally import Tally, write_table

KILLS_PER_RUN = 5


class Kind(NamedTuple):
    """A way to kill.

    Attributes:
        processes: of the run.
        killed: which of them.
        readers: numbers of reader processes that the starts have in turn.
    """

    processes: int
    killed: tuple[int, ...]
    readers: tuple[int, ...] = (0,)


KINDS = {
    "one process": Kind(1, (0,)),
    "one process, readers change": Kind(1, (0,), (0, 2, 1)),
    "process 1 of 2": Kind(2, (1,)),
    "process 0 of 2": Kind(2, (0,)),
    "both of 2": Kind(2, (0, 1)),
    "process 1 of 2, readers change": Kind(2, (1,), (0, 2, 1)),
}
# Exit code of a process whose peer was lost.
LOST = 4


@dataclass
class Kills(Tally):
    """What came of the kills of one kind."""

    kills: int = 0
    unnamed: int = 0
    aborted: int = 0
    left: int = 0
    useful: float = 0.0
    wall: float = 0.0

    def cells(self) -> list[object]:
        """Return the cells of its row, in the order of `COLUMNS`."""
        seconds = self.seconds or [0.0]
        return [
            self.kind,
            f"{self.kills} in {self.runs} runs",
            self.before_first_step,
            self.other_ends,
            f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
            self.unnamed,
            self.aborted,
            self.lost,
            self.left,
            f"{100 * self.useful / self.wall:.0f} %" if self.wall else "-",
        ]


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


def kill_runs(kind: str, kills: int, folder: Path, moments: random.Random) -> Kills:
    """Kill processes of runs so many times, and let each run end."""
    processes, killed, readers = KINDS[kind]
    expected, life, stepping = undisturbed(folder, processes)
    tally = Kills(kind)
    starts = 0

    def start(workdir: Path) -> Together:
        nonlocal starts
        starts += 1
        return Together(workdir, processes, readers[starts % len(readers)])

    while tally.kills < kills:
        workdir, ended = folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{tally.runs}", None
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
            tally.seconds.append(together.kill(killed))
            tally.wall += together.seconds
            tally.kills += 1
            judge(tally, together, killed, before)
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


def judge(tally: Kills, together: Together, killed: Sequence[int], before: int) -> None:
    """Count what a kill left behind, and what the others said."""
    taken = steps_taken(together.workdir)
    tally.steps_lost.append(max(0, taken - newest_checkpoint(together.workdir)))
    tally.before_first_step += taken <= before
    finished = (together.workdir / "result.json").is_file()
    for index, member in enumerate(together.members):
        tally.left += member.left_processes
        if index in killed or (finished and member.code == 0):
            continue
        tally.aborted += member.code == -signal.SIGABRT
        last = member.output.strip().splitlines()[-1:]
        # One that was killed before it had come is missed by the other, which says so too.
        named = any(f"process {i} " in line for i in killed for line in last)
        named |= any("processes have come" in line or "was not at" in line for line in last)
        if not named or member.code not in (LOST, 2):
            tally.unnamed += 1
            tally.problems.append(
                f"{tally.kind}: process {index}, code {member.code}, after step {taken}:\n"
                f"{member.output[-3000:]}"
            )


def compare(tally: Kills, ended: Together, expected: dict) -> None:
    """Compare a run that has ended with the one left alone."""
    tally.runs += 1
    codes = [member.code for member in ended.members]
    if not any(codes) and outcome(ended.workdir) == expected:
        tally.left += len(temporary_files(ended.workdir))
        shutil.rmtree(ended.workdir)
        shutil.rmtree(ended.members[0].temporary)
        return
    said = "\n".join(member.output[-1500:] for member in ended.members)
    tally.other_end(f"{ended.workdir}: another end, codes {codes}\n{said}")


def undisturbed(folder: Path, processes: int) -> tuple[dict, float, float]:
    """Return what a run ends with, how long a start takes, and its steps, if nothing disturbs."""
    workdir = folder / f"undisturbed-{processes}"
    if not (workdir / "result.json").is_file():
        make_images(folder / "images")
        # Once to fill the compilation cache, once to see how long a start takes.
        for place in (folder / "first", workdir):
            together = Together(place, processes, 0)
            if not together.end_by(600) or any(member.code for member in together.members):
                raise RuntimeError("\n".join(member.output for member in together.members))
        (workdir / "life").write_text(str(together.seconds))
        shutil.rmtree(folder / "first")
    expected = outcome(workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    stepping = expected["steps"] * BATCH_SIZE / statistics.median(rates)
    return expected, float((workdir / "life").read_text()), stepping


def main() -> int:
    """Kill in every way; print and write the table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=102, help="how many, over the kinds")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=Path("runs/kills"))
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tallies: list[Kills] = []
    for place, kind in enumerate(arguments.kinds):
        share = len(range(place, arguments.kills, len(arguments.kinds)))
        moments = random.Random(f"{arguments.seed} {kind}")
        tallies.append(kill_runs(kind, share, folder, moments))
        problems = [text for tally in tallies for text in tally.problems]
        table = write_table(folder, COLUMNS, tallies, problems)
    print(table)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
