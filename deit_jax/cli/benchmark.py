"""Measure how many training images a second the input delivers, and what the model would take.

There is one benchmark, "input". It times each stage of the input (read, decode, crop, transfer to
the device), then runs the input as it is configured, without a model, and compares that with the
model: with an estimate from its floating-point operations, or, with --measure, with the train step
itself. Speed beside PyTorch is measured by the scripts in benchmarks/.

Example:
  python -m deit_jax benchmark input --config configs/deit.py:small \\
      --config.data.source=folder --config.data.directory=DIR --config.data.workers=8
  python -m deit_jax benchmark input --config configs/digits.py:none --measure
"""

import argparse
from typing import Any

from deit_jax.cli.arguments import add_overrides, positive, positive_count, require_valid
from deit_jax.files import strict_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "what", nargs="?", choices=("input",), metavar="input", help="the benchmark to run"
    )
    parser.add_argument(
        "--config", metavar="FILE:WHAT", help="as for train.py, with --config.a.b=value"
    )
    parser.add_argument(
        "--images",
        type=positive_count,
        default=512,
        metavar="N",
        help="to time stages with (default: 512)",
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=10.0,
        help="to time stages, and the whole input, for at most (default: 10)",
    )
    parser.add_argument(
        "--measure", action="store_true", help="run the train step of the model too"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, nothing else")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.what is None:
        print(__doc__.strip())
        return 0
    if not args.config:
        raise ValueError("Give --config FILE:WHAT, such as --config configs/deit.py:small.")
    from deit_jax.sweeps.plan import read_config

    config = read_config(args.config, args.overrides)
    # Where to start and who teaches does not matter to the input.
    require_valid(config, but="" if args.measure else "config.teacher.")
    from deit_jax.training.input_speed import measure_input

    facts = measure_input(config, images=args.images, seconds=args.seconds, run_model=args.measure)
    if args.json:
        print(strict_json(facts))
    else:
        _show(facts)
    return 0


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console

    from deit_jax.reports.terminal import print_table, say
    from deit_jax.tables import Column

    console = Console()
    size = f" of {facts['bytes_per_record'] / 1e3:.0f} kB" if facts["bytes_per_record"] else ""
    say(
        console,
        f"{facts['data']}{size}; repeats {facts['repeats']}; batch {facts['batch_size']:,}; "
        f"{facts['readers']}; {facts['cores']} cores; "
        f"{facts['device']}.",
    )
    if facts["damaged"]:
        say(console, f"{facts['damaged']} damaged records were left out of the timing of stages.")
    rows = [[name, *_cost(ms)] for name, ms in facts["stages"].items()]
    rows.append(["host: all but transfer", *_cost(facts["core_ms"])])
    columns = [Column("stage, one core"), Column("ms per image", True), Column("images/s", True)]
    print_table(console, columns, rows, section_after=len(facts["stages"]))
    if facts["repeats"] > 1:
        say(console, f"Reading and decoding serve {facts['repeats']} images each.")
    if facts["read_wait_ms"] > 0.01:
        wait = facts["read_wait_ms"]
        say(console, f"Besides, reading waits {wait:.2g} ms for each image; threads overlap that.")
    if facts["timed_batch_size"] < facts["batch_size"]:
        say(
            console,
            f"Timed with batches of {facts['timed_batch_size']:,}, to keep within --seconds.",
        )
    say(
        console,
        f"The whole input, as configured: {facts['input_rate']:,.0f} images/s; first batch after "
        f"{facts['first_batch_seconds']:.1f} s.",
    )
    say(console, _verdict(facts))
    if facts["accelerators"]:
        say(console, f"Single accelerators ({facts['model_source']}):")
        columns = [Column("device"), Column("images/s", True), Column("cores to feed it", True)]
        others = facts["accelerators"].items()
        print_table(console, columns, [[n, f"{r:,.0f}", _cores(facts, r)] for n, r in others])


def _cost(milliseconds: float) -> list[str]:
    rate = f"{1e3 / milliseconds:,.0f}" if milliseconds else "-"
    return [f"{milliseconds:.4f}", rate]


def _cores(facts: dict[str, Any], rate: float) -> str:
    return f"{rate * facts['core_ms'] / 1e3:,.1f}"


def _verdict(facts: dict[str, Any]) -> str:
    """Say whether the input or the model is the limit, and how many cores the model would need."""
    model, rate = f"{facts['model']} on {facts['device']}", facts["model_rate"]
    if not rate:
        return f"How many images/s {model} would take is not known; --measure runs it."
    limit = "the model" if facts["input_rate"] > rate else "the input"
    return (
        f"{model} would take {rate:,.0f} images/s ({facts['model_source']}), which is the work of "
        f"{_cores(facts, rate)} cores: {limit} is the limit."
    )
