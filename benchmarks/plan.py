"""What a compiler plans for GPUs and TPUs that are not here; nothing is run or measured.

Prints every program's kernels by class, what they move and compute and the least time for that,
the memory of a device, what crosses between devices, and what changed against saved plans.
"""

import argparse
import datetime
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import names, numbers
from benchmarks.cases import DTYPES, MODES, Case, check_case
from benchmarks.planning.devices import Wanted, known_devices, read_wanted
from deit_jax.cli.arguments import Parser, between, parse
from deit_jax.files import sentence
from deit_jax.schema.networks import FUSED_KERNELS

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from benchmarks.planning.plan import Plan
    from benchmarks.planning.programs import Planned

# Of an experiment; the last three are a train step whose teacher's labels are kept.
_STEPS = ("train", "evaluate", "prepare", "answer", "learn")
_EXAMPLE = """\
examples:
  python -m benchmarks.plan --devices h200,h100 --models deit_small_patch16_224 --modes train
  python -m benchmarks.plan --devices h200:8,v5e:4x4 --config configs/distill.py:small,hard
  python -m benchmarks.plan --devices h200 --models deit_base_patch16_224 --against plans.json
"""


def main(argv: list[str] | None = None) -> int:
    """Compile, print and save; return the process's exit code."""
    parser = _parser()
    words = sys.argv[1:] if argv is None else argv
    overrides = [word for word in words if word.startswith("--config.")]
    arguments = parse(parser, [word for word in words if word not in overrides])
    import jax

    # The compilers are asked for; a device that is here would be in their way.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        wanted = [read_wanted(text) for text in arguments.devices]
        _run(arguments, overrides, wanted)
    # Of the compiler: an option that it does not know, a program that its device cannot hold.
    except (ValueError, OSError, jax.errors.JaxRuntimeError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def _run(arguments: argparse.Namespace, overrides: list[str], wanted: list[Wanted]) -> None:
    from benchmarks.hardware import describe_versions
    from benchmarks.planning import saved
    from benchmarks.planning.tables import change_section, plan_section
    from benchmarks.planning.target import open_mesh

    if arguments.save:
        saved.check_new(arguments.save)
    if arguments.hlo:
        arguments.hlo.mkdir(parents=True, exist_ok=True)
    earlier = saved.load(arguments.against) if arguments.against else {}
    jobs = _jobs(arguments, overrides)
    meshes = [open_mesh(each) for each in wanted]
    versions = describe_versions(("jax", "jaxlib", "flax", "jax-cuda13-pjrt", "libtpu"))
    print("# Plans: what the compiler makes of a program. Nothing here was run or measured.")
    print(f"\n{', '.join(f'{name} {version}' for name, version in versions.items())}\n")
    plans: list[Plan] = []
    for job in jobs:
        for each, mesh in zip(wanted, meshes, strict=True):
            plan = _plan(job, each, mesh, arguments)
            plans.append(plan)
            print(plan_section(plan, each.device, arguments.top) + "\n", flush=True)
            if before := earlier.get((plan.program, plan.devices)):
                print(change_section(plan, before, str(arguments.against)) + "\n", flush=True)
            elif arguments.against:
                print(f"{arguments.against} has no plan of this.\n")
            if arguments.save:
                # After each, so that a run that is stopped leaves what it has.
                about = {"date": datetime.date.today().isoformat(), "versions": versions}
                saved.save(arguments.save, plans, about)


def _jobs(arguments: argparse.Namespace, overrides: list[str]) -> list[Any]:
    """Return what is to be lowered: functions from a mesh to a program.

    Raises:
        ValueError: something asked for does not exist.
    """
    from functools import partial

    from benchmarks.planning import programs
    from deit_jax.schema import Config
    from deit_jax.sweeps.plan import read_config

    if bool(arguments.models) == bool(arguments.config):
        raise ValueError("Give either --models or --config: what shall be planned?")
    if overrides and not arguments.config:
        raise ValueError(f"{overrides[0]} changes a --config, which is not given.")
    if arguments.config:
        config = Config.of(read_config(arguments.config, overrides))
        programs.check_experiment(config)
        name = " ".join((arguments.config, *overrides))
        lower = partial(programs.lower_experiment, name, config)
        return [partial(lower, step) for step in arguments.steps]
    cases = [
        Case(
            *(model, mode, batch, dtype, arguments.teacher if mode == "distill" else ""),
            *(residual, kernels),
        )
        for model in arguments.models
        for mode in arguments.modes
        for batch in arguments.batch_sizes
        for dtype in arguments.dtypes
        for residual in arguments.residual_dtypes
        for kernels in arguments.fused_kernels
    ]
    for case in cases:
        check_case(case, (1,))
    return [partial(programs.lower_case, case) for case in cases]


def _plan(job: Any, wanted: Wanted, mesh: "Mesh", arguments: argparse.Namespace) -> "Plan":
    from benchmarks.planning import target
    from benchmarks.planning.plan import make_plan

    start = time.perf_counter()
    with target.answering_for(mesh):
        planned: Planned = job(mesh)
        options = dict(arguments.xla)
        compiled, note = target.compile_for(mesh, planned.lowered, options)
    seconds = time.perf_counter() - start
    if arguments.hlo:
        name = "".join(c if c.isalnum() else "-" for c in f"{planned.name}-{wanted}")
        (arguments.hlo / f"{name}.hlo").write_text(compiled.as_text() or "", encoding="utf-8")
    plan = make_plan(
        compiled,
        wanted.device,
        program=planned.name,
        devices=str(wanted),
        images=planned.images,
    )
    flags = [f"compiled with {key}={value}" for key, value in options.items()]
    notes = [*plan.notes, *flags, *filter(None, (note, planned.foreseen.rstrip(".")))]
    return replace(plan, notes=notes, compile_seconds=round(seconds, 1))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.plan",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    listed = ", ".join(known_devices())
    add(
        "--devices",
        type=names(),
        required=True,
        help=f"of {listed}; with a number (h200:8) or a topology (v5e:4x4)",
    )
    add("--models", type=names(), default=(), help="registered names, comma-separated")
    add("--modes", type=names(MODES), default=("train",), help=f"of {', '.join(MODES)}")
    add("--batch-sizes", type=numbers, default=(256,), help="images of one call (default 256)")
    add("--dtypes", type=names(DTYPES), default=("bfloat16",), help="default bfloat16")
    add(
        "--residual-dtypes",
        type=names(DTYPES),
        default=("float32",),
        help="of a transformer's residual stream (default float32)",
    )
    add(
        "--fused-kernels",
        type=names(FUSED_KERNELS),
        default=("none",),
        help=f"of {', '.join(FUSED_KERNELS)} (default none)",
    )
    add("--teacher", default="regnety_160", help="of mode distill (default regnety_160)")
    add("--config", metavar="FILE:ARG", help="an experiment; --config.a.b=value changes it")
    add("--steps", type=names(_STEPS), default=_STEPS[:1], help=f"of it: {', '.join(_STEPS)}")
    add("--xla", type=_option, action="append", default=[], metavar="FLAG=VALUE", help="of XLA")
    add("--top", type=between(0, 100), default=0, metavar="N", help="print the N largest kernels")
    add("--save", type=Path, metavar="FILE", help="keep the plans as JSON")
    add("--against", type=Path, metavar="FILE", help="print what changed against saved plans")
    add("--hlo", type=Path, metavar="FOLDER", help="write the compiled programs' text there")
    return parser


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FLAG=VALUE")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    return name, int(value) if value.lstrip("-").isdigit() else value


if __name__ == "__main__":
    sys.exit(main())
