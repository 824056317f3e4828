"""Run a family of configurations with several seeds, or collect what they reached.

Runs are made one after the other, each by train.py in WORKDIR/VARIANT-seedN. Give the same command
again and finished runs are skipped; a run that fails is named, the others go on, and the exit code
is 1. --print-slurm prints a job array for sbatch instead. Flags of the form --config.a.b=value are
for every run; {seed} and {variant} in a value become those of the run.
--collect reads all runs below the directories and writes tables.md, in the layout of the paper's
tables, and a picture of each.

Example:
  python -m deit_jax sweep --config configs/digits.py --variants none teacher --seeds 0 1 2 \\
      --workdir runs/sweep --config.schedule.epochs=200
  python -m deit_jax sweep --config configs/ablation.py --variants default no_mixup --seeds 0 1 \\
      --workdir runs/ablation --config.data.directory=DIR/imagenet2012/5.1.0 --print-slurm
  python -m deit_jax sweep --collect runs/sweep
"""

import argparse
import sys
from collections.abc import Sequence

from deit_jax.cli.arguments import add_overrides, seed

_TABLES = "tables.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--config", metavar="FILE", help="config file, such as configs/distill.py")
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help="what stands behind its colon (default: all)"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=seed, default=[0], metavar="N", help="default: 0"
    )
    parser.add_argument("--workdir", metavar="DIR", help="directory for the run directories")
    parser.add_argument(
        "--print-slurm", action="store_true", help="print a SLURM job array, run nothing"
    )
    parser.add_argument("--collect", nargs="+", metavar="DIR", help="write tables of these runs")
    parser.add_argument(
        "--output",
        "--out",
        metavar="DIR",
        help="for --collect: where to write (default: the first DIR)",
    )
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Plan and run, or print, or collect."""
    if any(flag.startswith("--config.seed=") for flag in args.overrides):
        raise ValueError(
            "--config.seed is what --seeds sets, one run for each; see python -m deit_jax sweep "
            "--help."
        )
    if args.collect:
        if args.config or args.workdir or args.overrides:
            raise ValueError("--collect only reads runs; leave --config and --workdir out.")
        return _collect(args.collect, args.output or args.collect[0])
    if args.output:
        raise ValueError("--output is where the tables of --collect go; give both, or neither.")
    if not args.config or not args.workdir:
        raise ValueError("Give --config FILE and --workdir DIR, or --collect DIR; see --help.")
    from deit_jax.sweeps.plan import plan, variants_of

    variants = args.variants or variants_of(args.config)
    runs = plan(args.config, variants, args.seeds, args.workdir, args.overrides)
    if args.print_slurm:
        from deit_jax.sweeps.slurm import array_script

        print(array_script(runs), end="")
        return 0
    from deit_jax.runs.interruption import Interrupted
    from deit_jax.sweeps.local import run_all

    try:
        failed = run_all(runs, lambda text: print(text, flush=True))
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.code
    print(f"{len(runs) - len(failed)} of {len(runs)} runs have finished.")
    if failed:
        print(f"Failed: {', '.join(failed)}. The same command tries them again.")
    return 1 if failed else 0


def _collect(directories: Sequence[str], output: str) -> int:
    """Write tables and pictures; print the tables."""
    import contextlib
    from pathlib import Path

    from deit_jax.files import write_text
    from deit_jax.reports.paper_picture import draw_table
    from deit_jax.reports.paper_tables import collect, paper_caption, paper_markdown, paper_tables

    collection = collect(directories)
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    parts, written = ["# Collected runs\n"], [str(target / _TABLES)]
    for number, (family, table) in enumerate(paper_tables(collection), start=1):
        parts += [
            paper_markdown(collection, family, table),
            paper_caption(collection, family, table) + "\n",
        ]
        picture = target / f"table-{number}-{family}.png"
        # Never an old picture beside a new table.
        picture.unlink(missing_ok=True)
        with contextlib.suppress(ModuleNotFoundError):
            draw_table(collection, family, table, picture)
            parts.append(f"![{table.title}]({picture.name})\n")
            written.append(str(picture))
    parts += [f"{note}\n" for note in collection.notes]
    text = "\n".join(parts)
    write_text(target / _TABLES, text)
    print(text)
    print(f"Written: {', '.join(written)}")
    return 0
