"""Measure runs and weights on a split: top-1, top-5 and loss of every head, and how they differ.

Every image counts exactly once, on any number of devices; runs and weights are only read.

Example:
  python -m deit_jax evaluate runs/small_hard
  python -m deit_jax evaluate runs/small_hard --checkpoint latest --weights ema --json
  python -m deit_jax evaluate deit_small_patch16_224-cd65a155.pth \\
      --source folder --directory IMAGENET --split val --real real.json
  python -m deit_jax evaluate runs/teacher runs/small runs/small_hard --disagreement --output out
"""

import argparse
from typing import TYPE_CHECKING, Any

from deit_jax.cli.arguments import (
    add_place_arguments,
    asked_place,
    checkpoint,
    positive_count,
    share,
)
from deit_jax.files import strict_json

if TYPE_CHECKING:
    from deit_jax.data.source import Source
    from deit_jax.evaluation.metrics import Answers, Metrics
    from deit_jax.evaluation.subjects import Place, Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a --workdir of train.py, or weights: a file, a directory or a cached repository",
    )
    parser.add_argument("--model", default="", help="name of the model, if weights do not show it")
    parser.add_argument(
        "--checkpoint",
        type=checkpoint,
        default="best",
        metavar="best|latest|STEP",
        help="which checkpoint of a run (default: best)",
    )
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="",
        help="raw or averaged weights (default: what the run's config.evaluation.weights says)",
    )
    parser.add_argument(
        "--fusion",
        choices=("mean_logits", "sum_softmax"),
        help="how both heads are put together (default: as the run's config.evaluation.fusion)",
    )
    _add_data_arguments(parser)
    parser.add_argument(
        "--disagreement",
        action="store_true",
        help="the fraction of images that each two of all models and heads answer differently",
    )
    parser.add_argument(
        "--output",
        "--out",
        metavar="DIR",
        help="write the table of --disagreement there, with a picture",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, a line a model")


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    add_place_arguments(parser)
    parser.add_argument(
        "--crop-ratio",
        type=share,
        help="share of the resized side that is kept (default: the run's; for weights what they "
        "say, else 0.875)",
    )
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        default="",
        help="the model's class for each class of the data: numbers, or a JSON object of names "
        "(default: by their names)",
    )
    parser.add_argument("--batch-size", type=positive_count, help="images at a time")
    parser.add_argument(
        "--real", metavar="FILE", help="real.json: count answers that are one of several labels"
    )


def run(args: argparse.Namespace) -> int:
    """Measure one model after the other; print or write what was asked for."""
    from deit_jax.evaluation.subjects import choose_place, open_place, read_subject

    if args.output and not args.disagreement:
        raise ValueError("--output is where the table of --disagreement goes; give both.")
    place: Place | None = None
    source: Source | None = None
    collected: dict[str, Answers] = {}
    for path in args.models:
        subject = read_subject(
            path, which=args.weights, checkpoint=args.checkpoint, model=args.model
        )
        # Differences are on the same images: those of the first model.
        if place is None or not args.disagreement:
            wanted = choose_place(subject.place, path, **asked_place(args))
            source = source if wanted == place else open_place(wanted)
            place = wanted
        assert source is not None
        answers = _evaluate(subject, source, place, args)
        if args.disagreement:
            collected.setdefault("labels", source.labels)
            collected |= _named(collected, subject, answers)
    if collected:
        _compare(collected, args)
    return 0


def _evaluate(
    subject: "Subject", source: "Source", place: "Place", args: argparse.Namespace
) -> "dict[str, Answers]":
    """Measure a model and print it; return its answers."""
    from deit_jax.data.papers.real_labels import read_real_labels
    from deit_jax.evaluation.real import match, real_accuracy
    from deit_jax.evaluation.subjects import map_classes, measure_on

    fusion = args.fusion or subject.fusion
    # Read first: a mistake should not show after all images.
    mapping = map_classes(subject, source, args.class_map)
    real, note = match(source, read_real_labels(args.real)) if args.real else ([], "")
    metrics, answers = measure_on(
        subject,
        source,
        fusion=fusion,
        crop_ratio=args.crop_ratio,
        mapping=mapping,
        batch_size=args.batch_size or subject.batch_size,
    )
    facts: dict[str, Any] = {
        **(
            {"run": subject.path, "step": subject.step} if subject.place else {"file": subject.path}
        ),
        "model": subject.model,
        "weights": subject.which,
        "split": place.split,
        "images": len(source),
        "fusion": fusion,
    }
    notes = [*subject.facts, *filter(None, [mapping.note])]
    if args.real:
        accuracy, facts["real_images"] = real_accuracy(answers, real)
        metrics = {head: values | {"real": accuracy[head]} for head, values in metrics.items()}
        notes.append(f"{note} {facts['real_images']:,} images have any.")
    if args.json:
        print(strict_json(facts | {"evaluation": metrics, "notes": notes}))
    else:
        _show(facts, metrics, _logged(subject, place, fusion, args), notes)
    return answers


def _logged(
    subject: "Subject", place: "Place", fusion: str, args: argparse.Namespace
) -> dict[str, float]:
    """Return what the run itself measured of the same, if it did."""
    from deit_jax.runs.history import read_run

    shown = subject.preprocessing
    same = subject.place == place and subject.fusion == fusion and not args.class_map
    if not same or shown.keeping(args.crop_ratio) != shown:
        return {}
    rows = [row for row in read_run(subject.path).lines("eval") if row["step"] == subject.step]
    return rows[-1] if rows else {}


def _show(
    facts: dict[str, Any], metrics: "Metrics", logged: dict[str, float], notes: list[str]
) -> None:
    from rich.console import Console

    from deit_jax.reports.terminal import print_table, say
    from deit_jax.tables import Column

    console = Console()
    what = "{model} of {run}, step {step}" if "run" in facts else "{model} of {file}"
    where = ", {weights} weights, on {images:,} images of split '{split}'."
    say(console, (what + where).format(**facts))
    headings = {"top1": "top-1 (%)", "top5": "top-5 (%)", "loss": "loss", "real": "ReaL (%)"}
    shown = [key for key in headings if key in next(iter(metrics.values()))]
    columns = [Column("head"), *(Column(headings[key], True) for key in shown)]
    rows = [
        [
            head if head != "fused" else f"both ({facts['fusion']})",
            *(f"{values[key]:.{4 if key == 'loss' else 3}f}" for key in shown),
        ]
        for head, values in metrics.items()
    ]
    before = [logged.get(f"{facts['weights']}/{head}/top1") for head in metrics]
    if None not in before:
        columns.append(Column("top-1 logged (%)", True))
        rows = [[*row, f"{top1:.3f}"] for row, top1 in zip(rows, before, strict=True)]
        notes = [*notes, "Logged: what the run itself measured at this step."]
    print_table(console, columns, rows)
    for note in notes:
        say(console, note)


def _named(
    known: "dict[str, Answers]", subject: "Subject", answers: "dict[str, Answers]"
) -> "dict[str, Answers]":
    """Return the answers of all heads under names that no other model has."""
    from deit_jax.reports.palette import HEAD_NAMES

    label = subject.label
    if any(name == label or name.startswith(f"{label}, ") for name in known):
        label = subject.path
    if len(answers) == 1:
        return {label: answers["class"]}
    return {f"{label}, {HEAD_NAMES[head]}": values for head, values in answers.items()}


def _compare(answers: "dict[str, Answers]", args: argparse.Namespace) -> None:
    from rich.console import Console

    from deit_jax.evaluation.agreement import disagreement
    from deit_jax.reports.agreement import show_disagreement, write
    from deit_jax.reports.terminal import say

    result = disagreement(answers)
    if args.json:
        content = {"names": result.names, "fractions": result.fractions.tolist()}
        print(strict_json({"disagreement": content | {"images": result.images}}))
    else:
        show_disagreement(result, Console())
    if args.output:
        files = write(result, args.output)
        if not args.json:
            say(Console(), f"Written: {', '.join(map(str, files))}.")
