"""Ask a GPU what only a GPU can answer, within the minutes that there is one.

    python -m benchmarks.gpu_slot --seconds 540

Correctness first, then what each formulation of the train step changes, torch.compile beside it,
distillation, training on files, resuming, and tables of kernels. Every answer is on disk as soon as
it is there; what this kind of card has answered for this code is not asked again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.slot import page, results
from benchmarks.slot.schedule import Schedule, start_process, telling_line
from benchmarks.slot.tasks import TASKS, Task, task
from deit_jax.cli.arguments import Parser, parse, positive

_START = 30
"""Seconds that finding out what machine this is may take."""


def main(argv: list[str] | None = None) -> int:
    """Run the slot; return the process's exit code."""
    begin = time.monotonic()
    parser = _parser()
    args = parse(parser, argv)
    try:
        chosen = [task(name) for name in args.only] if args.only else list(TASKS)
    except ValueError as error:
        parser.error(str(error))
    if args.list:
        print(_overview(chosen))
        return 0
    output = args.output or _default_output(args.smoke)
    if not output.is_dir():
        parser.error(f"{output} is not a directory; create it or write elsewhere.")
    try:
        facts = _describe()
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        parser.error(f"no device could be started: {error}")
    card, small = facts["stamp"]["card"], args.smoke
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = output / f"{began[:10]}-{_short(card, facts['stamp']['machine'])}{results.ENDING}"
    stamp = {"slot": began, "small": small, **facts["stamp"]}
    past = results.read_all({results.RESULTS, output})
    request = {"path": str(path.resolve()), "stamp": {"slot": began, "small": small}}
    print(f"{card}: {args.seconds:.0f} s; results go to {path}", flush=True)
    # Compiled programs, images and runs are gone with it; answers are elsewhere.
    with tempfile.TemporaryDirectory(prefix="deit_jax-slot-") as scratch:
        schedule = Schedule(
            path,
            stamp,
            facts["versions"],
            begin + args.seconds,
            past,
            args.again,
            partial(start_process, request=request, environment=_environment(scratch, small)),
            say=partial(_say, begin),
        )
        try:
            schedule.run(chosen)
        finally:
            # Also of a slot that somebody ends.
            here = [r for r in results.read(path) if r["slot"] == began]
            text = page.to_markdown(card, here, past, small=small)
            path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"{path.with_suffix('.md')} has the page.")
    return 0


def _environment(scratch: str, small: bool) -> dict[str, str]:
    """Return the environment of a slot's processes, which share the programs they compile."""
    wanted = {
        "JAX_COMPILATION_CACHE_DIR": f"{scratch}/programs",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        # JAX would take three quarters of the memory for itself and leave PyTorch too little.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **({"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if small else {}),
    }
    return {**wanted, **os.environ, "TMPDIR": scratch}


def _describe() -> dict[str, Any]:
    """Ask a process of its own: a device that this one held would be missing elsewhere."""
    command = [sys.executable, "-m", "benchmarks.slot.worker"]
    done = subprocess.run(
        command, cwd=results.ROOT, capture_output=True, text=True, timeout=4 * _START
    )
    if done.returncode:
        raise RuntimeError(telling_line(done.stderr))
    return json.loads(done.stdout.splitlines()[-1])


def _default_output(small: bool) -> Path:
    return Path(tempfile.mkdtemp(prefix="deit_jax-slot-")) if small else results.RESULTS


def _short(card: str, machine: dict[str, Any]) -> str:
    """Return the card's name as files have it: "NVIDIA H200" is h200."""
    if machine["backend"] == "cpu":
        return "cpu"
    words = card.lower().removeprefix("nvidia ").split()
    return "-".join("".join(c for c in word if c.isalnum()) for word in words)


def _overview(tasks: list[Task]) -> str:
    """Return what would be asked, with the seconds that it is expected to take."""
    lines = []
    for one in tasks:
        lines.append(f"{one.name:12} {one.estimate(one.parts):4.0f} s  {one.answers}")
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in one.parts.items())
        lines.append(f"{'':21}{one.start:.0f} s to start; {parts}")
    total = sum(one.estimate(one.parts) for one in tasks)
    return "\n".join([*lines, f"{'all':12} {total:4.0f} s"])


def _say(begin: float, text: str) -> None:
    print(f"[{time.monotonic() - begin:4.0f} s] {text}", flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.gpu_slot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=positive, default=540.0, help="until when (default 540)")
    add("--list", action="store_true", help="print what would be asked, with estimates, and leave")
    add("--only", action="append", metavar="NAME", help="ask this alone; may be given repeatedly")
    add("--again", action="store_true", help="ask what was answered before, too")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where results are written (default benchmarks/results), and read from besides",
    )
    add(
        "--smoke",
        action="store_true",
        help="tiny networks, to see on any machine that all of it runs; written to a new folder",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
