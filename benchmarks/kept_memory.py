"""What a train step on a CPU gains where the C library keeps freed memory, in processes in turn.

XLA takes the memory of a program's intermediate results anew at every call. glibc takes so much
from the system, gives it back, and next time all of it is mapped again, page by page.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.arguments import check_outputs, names, numbers
from benchmarks.cases import DTYPES, Case, check_case
from benchmarks.timing import speedup, spread
from deit_jax.cli.arguments import Parser, parse, positive_count

KEPT = ":".join(
    f"glibc.malloc.{tunable}"
    for tunable in ("arena_max=1", "mmap_max=0", f"trim_threshold={8 << 30}", "hugetlb=1")
)
"""The value of GLIBC_TUNABLES: one heap, which is never given back, of large pages."""

_METHOD = """\
Each row is a process of its own; they take turns, a step each. Ratios are formed round by round,
**above 1 is faster than the first row of the same type**; medians, lowest and highest in brackets.
**Kept**: started with `GLIBC_TUNABLES={kept}`.
"""
_HEADER = ["type", "micro-batches", "memory", "ms/step", "times the first", "page faults", "MiB"]


@dataclass
class _Turns:
    """A process that takes steps when told to, and what was measured of each."""

    micro_batches: int
    kept: bool
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def turn(self) -> None:
        """Let it take a step."""
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("A process that takes steps has ended; its error is above.")
        seconds, faults, self.mebibytes = json.loads(answer)
        self.seconds.append(seconds)
        self.faults.append(faults)


def main(argv: list[str] | None = None) -> int:
    """Measure and print a page; return the process's exit code."""
    parser = _parser()
    args = parse(parser, argv)
    cases = [Case(args.model, "train", args.batch_size, dtype) for dtype in args.dtypes]
    try:
        if not sys.platform.startswith("linux"):
            raise ValueError("The C library that is measured is that of Linux; measure there.")
        for case in cases:
            check_case(case, args.micro_batches)
        check_outputs([args.markdown])
    except ValueError as error:
        parser.error(str(error))
    rows = [row for case in cases for row in _measure(case, args.micro_batches, args.rounds)]
    page = _page(args, rows)
    print(page)
    if args.markdown:
        report.write(args.markdown, page + "\n")
    return 0


def _measure(case: Case, micro_batches: Sequence[int], rounds: int) -> list[list[str]]:
    """Let processes with and without kept memory take turns; return a row of each."""
    started = [_start(case, count, kept) for count in micro_batches for kept in (False, True)]
    try:
        for each in range(rounds + 1):
            for turns in started:
                turns.turn()
                if not each:
                    # Maps what it will use, whether or not that is kept.
                    turns.seconds.clear()
                    turns.faults.clear()
    finally:
        for turns in started:
            turns.process.kill()
            turns.process.wait()
    return [_row(case, turns, started[0]) for turns in started]


def _start(case: Case, micro_batches: int, kept: bool) -> _Turns:
    environment = dict(os.environ, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1")
    environment["GLIBC_TUNABLES"] = KEPT if kept else ""
    request = json.dumps([asdict(case), micro_batches])
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kept_memory", "--take-steps", request],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return _Turns(micro_batches, kept, process)


def _row(case: Case, turns: _Turns, first: _Turns) -> list[str]:
    time, ratio = spread(turns.seconds), speedup(turns.seconds, first.seconds)
    return [
        case.dtype,
        str(turns.micro_batches),
        "kept" if turns.kept else "as it is",
        f"{1e3 * time.median:.4g} ({1e3 * time.low:.4g}-{1e3 * time.high:.4g})",
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})",
        f"{spread(turns.faults).median:,.0f}",
        f"{turns.mebibytes:,.0f}",
    ]


def _page(args: argparse.Namespace, rows: list[list[str]]) -> str:
    from benchmarks.hardware import describe_machine, describe_versions

    machine, versions = report.pairs(describe_machine()), report.pairs(describe_versions())
    lines = [
        f"# Memory that is kept, {args.model}, batch {args.batch_size}",
        "",
        f"{datetime.date.today().isoformat()}: {machine}; {versions}; {args.rounds} rounds.",
        "",
        *_METHOD.format(kept=KEPT).splitlines(),
        "",
        report.table(_HEADER, rows),
    ]
    return "\n".join(lines)


def _take_steps(request: str) -> None:
    """Take a step for every line that is read; write its seconds, faults and the process's peak."""
    from benchmarks import jax_side

    values, micro_batches = json.loads(request)
    program = jax_side.build(Case(**values), micro_batches)
    program.run(1)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = program.run(1)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([seconds, used.ru_minflt - before, used.ru_maxrss / 1024]), flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.kept_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="deit_tiny_patch16_224", help="a registered model (default DeiT-Ti)")
    add("--batch-size", type=positive_count, default=16, help="default 16")
    add("--dtypes", type=names(DTYPES), default=DTYPES, help=f"of {', '.join(DTYPES)} (both)")
    add("--micro-batches", type=numbers, default=(1, 4), help="slices of a batch (default 1,4)")
    add("--rounds", type=positive_count, default=15, help="of turns (default 15)")
    add("--markdown", type=Path, metavar="FILE", help="write the page there")
    return parser


if __name__ == "__main__":
    if sys.argv[1:2] == ["--take-steps"]:
        _take_steps(sys.argv[2])
    else:
        sys.exit(main())
