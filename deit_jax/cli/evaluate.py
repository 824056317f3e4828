"""Measure a checkpoint of a run again: top-1, top-5 and loss of every head.

Every image counts exactly once, on any number of devices; the run is only read.

Example:
  python -m deit_jax evaluate runs/small_hard
  python -m deit_jax evaluate runs/small_hard --checkpoint latest --weights ema --json
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from deit_jax.evaluation.evaluate import Metrics
    from deit_jax.viewing.runs import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("run", metavar="RUN", help="a --workdir of train.py")
    parser.add_argument(
        "--checkpoint",
        type=_checkpoint,
        default="best",
        metavar="best|latest|STEP",
        help="which checkpoint (default: best)",
    )
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        help="raw or averaged weights (default: what the run's config.evaluation.weights says)",
    )
    parser.add_argument(
        "--fusion",
        choices=("mean_logits", "sum_softmax"),
        help="how both heads are put together (default: as the run's config.evaluation.fusion)",
    )
    parser.add_argument("--split", help="default: the run's config.data.eval_split")
    parser.add_argument(
        "--directory", help="where the data is now (default: the run's config.data.directory)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, nothing else")


def run(args: argparse.Namespace) -> int:
    """Load the weights, run over the split, print all heads."""
    from deit_jax.training.checkpoint import load_weights
    from deit_jax.viewing.runs import read_run

    run = read_run(args.run)
    config = _evaluation_config(run, args)
    weights = args.weights or run.config["evaluation"]["weights"]
    params, batch_stats, meta = load_weights(
        run.path / "checkpoints", args.checkpoint, "params" if weights == "raw" else "ema"
    )
    images, metrics = _measure(config, weights, params, batch_stats)
    facts = {
        "run": str(run.path),
        "model": config.model.name,
        "step": meta["step"],
        "weights": weights,
        "split": config.data.eval_split,
        "images": images,
        "fusion": config.evaluation.fusion,
    }
    if args.json:
        print(json.dumps(facts | {"evaluation": metrics}))
    else:
        _show(facts, metrics, _logged(run, config, facts))
    return 0


def _evaluation_config(run: "RunRecord", args: argparse.Namespace) -> "ConfigDict":
    """Return the run's configuration, changed to read nothing but the evaluation split."""
    import jax

    from deit_jax.config.defaults import default_config

    config = default_config()
    # The defaults fill in keys that are younger than the run.
    config.update(run.config)
    config.data.eval_split = args.split or config.data.eval_split
    config.data.train_split = config.data.eval_split
    config.data.train_images = 0
    config.data.directory = args.directory or config.data.directory
    config.distillation.kind = "none"
    config.evaluation.fusion = args.fusion or config.evaluation.fusion
    # The devices here may be others than those of the run.
    devices = jax.device_count()
    config.evaluation.batch_size = -(-config.evaluation.batch_size // devices) * devices
    return config


def _measure(
    config: "ConfigDict", weights: str, params: dict[str, Any], batch_stats: dict[str, Any]
) -> tuple[int, "Metrics"]:
    """Return the number of images of the split and the metrics of each head."""
    import contextlib

    from deit_jax.data.pipeline import eval_batches
    from deit_jax.evaluation.evaluate import evaluate
    from deit_jax.training.setup import prepare

    setup = prepare(config)
    with contextlib.closing(eval_batches(setup.eval_source, setup.eval_input)) as batches:
        measured = evaluate(setup.eval_step, {weights: (params, batch_stats)}, batches, setup.mesh)
    return len(setup.eval_source), measured[weights]


def _logged(run: "RunRecord", config: "ConfigDict", facts: dict[str, Any]) -> dict[str, float]:
    """Return what the run itself measured of the same, if it did."""
    same = (
        config.data.eval_split == run.config["data"]["eval_split"]
        and config.evaluation.fusion == run.config["evaluation"]["fusion"]
    )
    rows = [row for row in run.lines("eval") if row["step"] == facts["step"]]
    return rows[-1] if rows and same else {}


def _show(facts: dict[str, Any], metrics: "Metrics", logged: dict[str, float]) -> None:
    from rich.console import Console

    from deit_jax.viewing.terminal import Column, print_table, say

    console = Console()
    weights = facts["weights"]
    say(
        console,
        "{model} of {run}, step {step}, {weights} weights, on {images:,} images of split "
        "'{split}'.".format(**facts),
    )
    columns = [Column("head")]
    columns += [Column(name, True) for name in ("top-1 (%)", "top-5 (%)", "loss")]
    rows = [
        [
            head if head != "fused" else f"both ({facts['fusion']})",
            f"{values['top1']:.3f}",
            f"{values['top5']:.3f}",
            f"{values['loss']:.4f}",
        ]
        for head, values in metrics.items()
    ]
    before = [logged.get(f"{weights}/{head}/top1") for head in metrics]
    if None not in before:
        columns.append(Column("top-1 logged (%)", True))
        rows = [[*row, f"{top1:.3f}"] for row, top1 in zip(rows, before, strict=True)]
    print_table(console, columns, rows)
    if None not in before:
        say(console, "Logged: what the run itself measured at this step.")


def _checkpoint(text: str) -> str | int:
    if text in ("best", "latest"):
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither best nor latest nor a step")
    return int(text)
