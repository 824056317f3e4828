"""How many training images a second the input delivers, beside torchvision's and timm's loader."""

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.arguments import check_outputs, numbers
from benchmarks.input_report import to_markdown
from benchmarks.input_side import Side
from benchmarks.photographs import write_folder
from deit_jax.cli.arguments import Parser, parse, positive, positive_count

_EXAMPLE = """\
example:
  python -m benchmarks.input --markdown benchmarks/results/2026-01-31-my-machine-input.md
"""
_PACKAGES = ("grain", "numba", "simplejpeg", "pillow", "numpy", "torch", "torchvision", "timm")
_SHORT_SIDE = 256


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the process's exit code."""
    parser = _parser()
    args = parse(parser, argv)
    try:
        _check(args)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="deit_jax-input-") as folder:
        print("making images", file=sys.stderr, flush=True)
        facts = _make_images(Path(folder), args)
        results = _take_turns(_sides(Path(folder), args), args.rounds)
    page = _page(args, argv) | facts | {"results": results}
    if args.json:
        report.write(args.json, report.to_json(page))
    text = to_markdown(page)
    if args.markdown:
        report.write(args.markdown, text)
    print(text)
    return 0


def _make_images(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Write the image folder, and what `prepare` makes of it."""
    size = write_folder(folder / "folder", args.images)
    facts: dict[str, Any] = {"images": args.images, "bytes_per_image": size / args.images}
    if not args.prepared:
        return facts
    for name, options in {"prepared": [], "short": ["--short-side", str(_SHORT_SIDE)]}.items():
        command = [sys.executable, "-m", "deit_jax", "prepare", str(folder / "folder")]
        command += [str(folder / name), "--splits", "train", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shards = (folder / "short").rglob("*.array_record")
    facts["bytes_per_short_image"] = sum(file.stat().st_size for file in shards) / args.images
    return facts


def _sides(folder: Path, args: argparse.Namespace) -> list[Side]:
    """Return the programs of one round, those that are compared next to each other."""

    def side(program: str, source: str, *rest: int) -> Side:
        cores, workers, threads, repeats = rest
        kind = source if source == "folder" else "prepared"
        where = str(folder / source)
        return Side(
            *(program, kind, where, cores, workers, threads, repeats),
            batch_size=args.batch_size,
            seconds=args.seconds,
        )

    sides = []
    for repeats in args.repeats:
        for cores in range(1, args.cores + 1):
            sides.append(side("torch", "folder", cores, cores, 0, repeats))
            sides.append(side("deit_jax", "folder", cores, cores, 1, repeats))
            if cores == 1:
                sides.append(side("torch", "folder", 1, 0, 0, repeats))
            sides.append(side("deit_jax", "folder", cores, 0, cores, repeats))
            if args.prepared and cores == 1:
                sides += [
                    side("deit_jax", name, 1, 1, 1, repeats) for name in ("prepared", "short")
                ]
    return sides


def _take_turns(sides: list[Side], rounds: int) -> list[dict[str, Any]]:
    """Measure A B C A B C ..., each time in a fresh process."""
    from benchmarks.hardware import LoadMeter

    results: list[dict[str, Any]] = [
        {"side": dataclasses.asdict(side), "rounds": []} for side in sides
    ]
    for number in range(rounds):
        for side, result in zip(sides, results, strict=True):
            meter = LoadMeter()
            measured = _measure(side)
            measured["other_load"] = meter.others()
            result["rounds"].append(measured)
            print(
                f"[{number + 1}/{rounds}] {side.program} {Path(side.directory).name}, "
                f"{side.cores} core(s), {side.workers} worker(s), repeats {side.repeats}: "
                f"{measured['images_per_second']:.0f} images/s, "
                f"{measured['processor_ms_per_image']:.3f} ms of a core for each",
                file=sys.stderr,
                flush=True,
            )
    return results


def _measure(side: Side) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.input_side", json.dumps(dataclasses.asdict(side))]
    # Where images are transformed in processes, libraries' own threads only get in their way.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _page(args: argparse.Namespace, argv: list[str] | None) -> dict[str, Any]:
    from benchmarks.hardware import describe_machine, describe_versions
    from benchmarks.throughput import without_files

    given = list(sys.argv[1:] if argv is None else argv)
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m benchmarks.input", *without_files(given)]),
        "machine": describe_machine(),
        "versions": describe_versions(_PACKAGES),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "batch_size": args.batch_size,
        "short_side": _SHORT_SIDE,
    }


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError before anything is written or measured."""
    if args.images < 256 and max(args.repeats) > 1:
        raise ValueError("--images must be at least 256: timm's repeating sampler yields no fewer.")
    available = len(os.sched_getaffinity(0))
    if args.cores > available:
        raise ValueError(f"--cores is {args.cores} but there are {available}.")
    check_outputs((args.json, args.markdown))
    try:
        importlib.import_module("benchmarks.timm_import")
    except ModuleNotFoundError as error:
        raise ValueError(f"The other side is missing: {error}") from error


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.input",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--images", type=positive_count, default=512, help="JPEG files that are made (default 512)")
    add("--batch-size", type=positive_count, default=64, help="images of a batch (default 64)")
    add("--rounds", type=positive_count, default=5, help="rounds of turns (default 5)")
    add("--seconds", type=positive, default=5.0, help="that a turn measures for (default 5)")
    add("--cores", type=positive_count, default=2, help="measure on 1 to so many cores (default 2)")
    add("--repeats", type=numbers, default=(1, 3), help="copies of an image (default 1,3)")
    add(
        "--prepared",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure what `python -m deit_jax prepare` makes of the folder",
    )
    add("--json", type=Path, metavar="FILE", help="write results as JSON")
    add("--markdown", type=Path, metavar="FILE", help="write results as a Markdown page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
