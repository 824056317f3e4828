"""How fast deit_jax predicts and trains, beside PyTorch on the same machine."""

import argparse
import datetime
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.arguments import check_against, check_outputs, names, numbers
from benchmarks.cases import AGAINST, DTYPES, MODES, OURS, Case, check_case
from deit_jax.cli.arguments import Parser, parse, positive, positive_count

_EXAMPLE = """\
example:
  python -m benchmarks.throughput --models deit_tiny_patch16_224 --modes inference,train \\
      --batch-sizes 1,32 --dtypes float32,bfloat16 --against torch,torch_compile \\
      --markdown benchmarks/results/2026-01-31-my-machine.md
"""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the process's exit code."""
    parser = _parser()
    arguments = parse(parser, argv)
    # JAX would take three quarters of a GPU's memory for itself and leave PyTorch too little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Compile times are measured, so nothing may come from an earlier run.
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    try:
        cases = _cases(arguments)
        _check(arguments, cases)
    except ValueError as error:
        parser.error(str(error))
    import jax

    from benchmarks import measure

    jax.config.update("jax_enable_compilation_cache", False)
    page = _page(arguments, argv)
    for number, case in enumerate(cases, start=1):
        print(f"[{number}/{len(cases)}] {case}", file=sys.stderr, flush=True)
        try:
            page["results"] += measure.measure_case(
                case,
                against=arguments.against,
                micro_batches=arguments.micro_batches,
                attention=arguments.attention,
                build_threads=arguments.build_threads,
                rounds=arguments.repeats,
                turn_seconds=arguments.turn_seconds,
                peak=page["peaks"][case.dtype][0],
                fresh_processes=arguments.memory,
            )
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error):
                raise
            page["skipped"].append(f"{case}: out of memory")
            print(f"  {page['skipped'][-1]}", file=sys.stderr)
        # After every case, so that a long run that is stopped leaves what it has.
        if arguments.json:
            report.write(arguments.json, report.to_json(page))
        if arguments.markdown:
            report.write(arguments.markdown, report.to_markdown(page))
    print(report.comparison_table(page["results"]))
    print(report.load_sentence(page["results"]))
    return 0


def _page(arguments: argparse.Namespace, argv: list[str] | None) -> dict[str, Any]:
    """Everything that a report says besides the results."""
    from benchmarks import hardware

    torch_settings: dict[str, Any] = {}
    products = {dtype: {"JAX": hardware.product_flops(dtype)} for dtype in arguments.dtypes}
    if arguments.against:
        from benchmarks import torch_side

        torch_settings = torch_side.settings()
        for dtype in arguments.dtypes:
            products[dtype]["PyTorch"] = torch_side.product_flops(dtype)
    given = list(sys.argv[1:] if argv is None else argv)
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.throughput " + " ".join(without_files(given)),
        "machine": hardware.describe_machine(),
        "versions": hardware.describe_versions(),
        "torch_settings": torch_settings,
        "rounds": arguments.repeats,
        "turn_seconds": arguments.turn_seconds,
        "peaks": {dtype: hardware.peak_flops(dtype) for dtype in arguments.dtypes},
        "product_side": hardware.product_side(),
        "products": products,
        "results": [],
        "skipped": [],
    }


def _cases(arguments: argparse.Namespace) -> list[Case]:
    return [
        Case(model, mode, batch_size, dtype, arguments.teacher if mode == "distill" else "")
        for model in arguments.models
        for mode in arguments.modes
        for batch_size in arguments.batch_sizes
        for dtype in arguments.dtypes
    ]


def _check(arguments: argparse.Namespace, cases: list[Case]) -> None:
    """Raise ValueError before anything is compiled that would be in vain."""
    import jax

    for case in cases:
        check_case(case, arguments.micro_batches)
    check_outputs((arguments.json, arguments.markdown))
    models = {case.model for case in cases} | {case.teacher for case in cases} - {""}
    check_against(arguments.against, models)
    if arguments.against:
        from benchmarks import torch_side

        # JAX says "gpu" where PyTorch says "cuda".
        ours, theirs = jax.default_backend(), torch_side.DEVICE.type.replace("cuda", "gpu")
        if ours != theirs:
            raise ValueError(
                f"JAX computes on a {ours}, PyTorch on a {theirs}: no comparison. Install both for "
                "the same device, or hide the GPU (JAX_PLATFORMS=cpu, CUDA_VISIBLE_DEVICES=)."
            )


def without_files(argv: list[str]) -> list[str]:
    """Drop where the results are written: it says nothing about the measurement."""
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word in ("--json", "--markdown"):
            skip = True
        elif not word.startswith(("--json=", "--markdown=")):
            kept.append(word)
    return kept


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", type=names(), required=True, help="registered names, comma-separated")
    add("--modes", type=names(MODES), default=("inference",), help=f"of {', '.join(MODES)}")
    add("--batch-sizes", type=numbers, default=(32,), help="images of one call (default 32)")
    add("--dtypes", type=names(DTYPES), default=("float32",), help=f"of {', '.join(DTYPES)}")
    add("--against", type=names(AGAINST), default=(), help=f"of {', '.join(AGAINST)}")
    add("--teacher", default="regnety_160", help="of mode distill (default regnety_160)")
    add(
        "--micro-batches",
        type=numbers,
        default=(1,),
        help="slices that a training batch is run in, on both sides (default 1)",
    )
    add(
        "--attention",
        type=names(tuple(OURS.values())),
        default=("auto",),
        help=f"forms of deit_jax's attention, of {', '.join(OURS.values())} (default auto)",
    )
    add(
        "--build-threads",
        type=positive_count,
        default=1,
        metavar="N",
        help="compile N of deit_jax's programs at once, PyTorch's meanwhile; compile times then "
        "say nothing (default 1: one after the other)",
    )
    add(
        "--repeats", type=positive_count, default=7, metavar="N", help="rounds of turns (default 7)"
    )
    add("--turn-seconds", type=positive, default=0.5, help="shortest turn (default 0.5)")
    add(
        "--memory",
        action="store_true",
        help="measure peak memory too, each program once more in a fresh process",
    )
    add("--json", type=Path, metavar="FILE", help="write results as JSON")
    add("--markdown", type=Path, metavar="FILE", help="write results as a Markdown page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
