"""What a train step on a CPU gains where the C library keeps freed memory, in processes in turn.

XLA takes the memory of a program's intermediate results anew at every call. glibc takes so much
from the system, gives it back, and next time all of it is mapped again, page by page.
"""

import argparse
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
from benchmarks.timing import Program, speedup, spread, take_turns
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
class _Stepper:
    """A process that takes steps when told to, and what it said of each."""

    micro_batches: int
    kept: bool
    process: subprocess.Popen[str]
    faults: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def program(self) -> Program:
        """Return what makes it take a step."""
        return Program("deit_jax", self.micro_batches, self._step, lambda: None, False)

    def _step(self) -> None:
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("A process that takes steps has ended; its error is above.")
        faults, self.mebibytes = json.loads(answer)
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
        programs = [each.program() for each in started]
        seconds = take_turns(programs, rounds=rounds, turn_seconds=0.0)
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()
    return [_row(case, *each, seconds[0]) for each in zip(started, seconds, strict=True)]


def _start(case: Case, micro_batches: int, kept: bool) -> _Stepper:
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
    return _Stepper(micro_batches, kept, process)


def _row(
    case: Case, stepper: _Stepper, seconds: Sequence[float], first: Sequence[float]
) -> list[str]:
    return [
        case.dtype,
        str(stepper.micro_batches),
        "kept" if stepper.kept else "as it is",
        f"{spread([1e3 * each for each in seconds]):.4g}",
        f"{speedup(seconds, first):.2f}",
        f"{spread(stepper.faults).median:,.0f}",
        f"{stepper.mebibytes:,.0f}",
    ]


def _page(args: argparse.Namespace, rows: list[list[str]]) -> str:
    from benchmarks.hardware import describe

    lines = [
        f"# Memory that is kept, {args.model}, batch {args.batch_size}",
        "",
        f"{describe()}; {args.rounds} rounds.",
        "",
        *_METHOD.format(kept=KEPT).splitlines(),
        "",
        report.table(_HEADER, rows),
    ]
    return "\n".join(lines)


def _take_steps(request: str) -> None:
    """Take a step for every line that is read; write its page faults and the process's peak."""
    from benchmarks import jax_side

    values, micro_batches = json.loads(request)
    program = jax_side.build(Case(**values), micro_batches)
    program.run(1)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        program.run(1)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([used.ru_minflt - before, used.ru_maxrss / 1024]), flush=True)


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
