"""What programs on a CPU gain where freed memory is kept, in processes in turn.

XLA takes the memory of a program's intermediate results anew at every call. glibc takes so much
from the system, gives it back, and next time all of it is mapped again, page by page. Training has
it kept (deit_jax/kept_memory.py).
"""

import argparse
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.arguments import check_against, check_outputs, names, numbers
from benchmarks.cases import AGAINST, DTYPES, OURS, Case, check_case
from benchmarks.timing import Program, speedup, spread, take_turns
from deit_jax.cli.arguments import Parser, parse, positive_count
from deit_jax.kept_memory import keep_freed_memory

_METHOD = """\
Each row is a process of its own; they take turns of half a second, or of one call. The ratio,
formed round by round, is how many times as fast **the first row** of the same type is: **above 1 it
is faster than this row**. Training keeps memory, other commands do not, and so does the first row.
Medians, lowest and highest in brackets.
"""
_HEADER = ["type", "program", "micro-batches", "memory", "ms", "the first is", "page faults", "MiB"]


@dataclass
class _Stepper:
    """A process that calls a program when told to, and what it said of each call."""

    name: str
    micro_batches: int
    kept: bool
    process: subprocess.Popen[str]
    faults: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def program(self) -> Program:
        """Return what makes it call."""
        return Program(self.name, self.micro_batches, self._step, lambda: None, False)

    def _step(self) -> None:
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("A process that was measured has ended; its error is above.")
        faults, self.mebibytes = json.loads(answer)
        self.faults.append(faults)


def main(argv: list[str] | None = None) -> int:
    """Measure and print a page; return the process's exit code."""
    parser = _parser()
    args = parse(parser, argv)
    cases = [Case(args.model, args.mode, args.batch_size, dtype) for dtype in args.dtypes]
    try:
        if not sys.platform.startswith("linux"):
            raise ValueError("The C library that is measured is that of Linux; measure there.")
        for case in cases:
            check_case(case, args.micro_batches)
        check_against(args.against, [args.model])
        check_outputs([args.markdown])
    except ValueError as error:
        parser.error(str(error))
    programs = (next(iter(OURS)), *args.against)
    # As in `measure_case`: only a train step is run in slices.
    training = args.mode == "train"
    counts = args.micro_batches if training else (1,)
    kinds = list(itertools.product(programs, counts, (training, not training)))
    rows = [row for case in cases for row in _measure(case, kinds, args.rounds)]
    page = _page(args, rows)
    print(page)
    if args.markdown:
        report.write(args.markdown, page + "\n")
    return 0


def _measure(case: Case, kinds: Sequence[tuple[str, int, bool]], rounds: int) -> list[list[str]]:
    """Let processes take turns; return a row of each.

    Args:
        case: what they call.
        kinds: of each its program, micro-batches, and whether it keeps memory.
        rounds: of turns.
    """
    started = [_start(case, *kind) for kind in kinds]
    try:
        programs = [each.program() for each in started]
        seconds = take_turns(programs, rounds=rounds, turn_seconds=0.5, pause_seconds=0.3)
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()
    return [_row(case, *each, seconds[0]) for each in zip(started, seconds, strict=True)]


def _start(case: Case, name: str, micro_batches: int, kept: bool) -> _Stepper:
    # PyTorch, too, would otherwise take a GPU that is here.
    cpu = dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1", CUDA_VISIBLE_DEVICES="")
    environment = {**os.environ, **cpu}
    request = json.dumps([asdict(case), name, micro_batches, kept])
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kept_memory", "--calls", request],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return _Stepper(name, micro_batches, kept, process)


def _row(
    case: Case, stepper: _Stepper, seconds: Sequence[float], first: Sequence[float]
) -> list[str]:
    return [
        case.dtype,
        stepper.name,
        str(stepper.micro_batches),
        "kept" if stepper.kept else "as it is",
        f"{spread([1e3 * each for each in seconds]):.4g}",
        f"{speedup(first, seconds):.2f}",
        f"{spread(stepper.faults).median:,.0f}",
        f"{stepper.mebibytes:,.0f}",
    ]


def _page(args: argparse.Namespace, rows: list[list[str]]) -> str:
    from benchmarks.hardware import describe

    lines = [
        f"# Memory that is kept, {args.model} {args.mode}, batch {args.batch_size}",
        "",
        f"{describe()}; {args.rounds} rounds.",
        "",
        *_METHOD.splitlines(),
        "",
        report.table(_HEADER, rows),
    ]
    return "\n".join(lines)


def _call(request: str) -> None:
    """Call a program for every line that is read; write its page faults and the process's peak."""
    values, name, micro_batches, kept = json.loads(request)
    if kept and not keep_freed_memory():
        sys.exit("glibc's allocator is set by GLIBC_TUNABLES or MALLOC_*; unset them.")
    side = importlib.import_module(f"benchmarks.{'jax' if name in OURS else 'torch'}_side")
    program = side.build(Case(**values), micro_batches, name)
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
    add("--mode", choices=("train", "inference"), default="train", help="default train")
    add("--batch-size", type=positive_count, default=16, help="default 16")
    add("--dtypes", type=names(DTYPES), default=DTYPES, help=f"of {', '.join(DTYPES)} (both)")
    add("--micro-batches", type=numbers, default=(1,), help="slices of a batch (default 1)")
    add("--against", type=names(AGAINST), default=(), help=f"of {', '.join(AGAINST)}")
    add("--rounds", type=positive_count, default=15, help="of turns (default 15)")
    add("--markdown", type=Path, metavar="FILE", help="write the page there")
    return parser


if __name__ == "__main__":
    if sys.argv[1:2] == ["--calls"]:
        _call(sys.argv[2])
    else:
        sys.exit(main())
