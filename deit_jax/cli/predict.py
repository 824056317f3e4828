"""Say what is on images: the five likeliest classes, by each head and by both together.

Images are resized, cropped and normalised as the weights say (a config.json or
preprocessor_config.json beside them, their run), else as the reference evaluates. Names of classes
are those of --classes (a line for each, or JSON), else those that come with the weights or the run;
of published weights ImageNet's, from the extra `pretrained` (which has the weights lite0, 1 and 2
too); without any, classes have numbers.
Images that cannot be read are named and skipped; the exit code is then 1.

Example:
  python -m deit_jax predict --weights deit_small_patch16_224-cd65a155.pth cat.jpeg dog.jpeg
  python -m deit_jax predict --weights runs/small_hard photos/ --json
  python -m deit_jax predict --weights lite0 cat.jpeg
"""

import argparse
import sys
from typing import TYPE_CHECKING

from deit_jax.cli.arguments import add_crop_ratio, add_weights_choice, positive_count
from deit_jax.files import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from deit_jax.evaluation.predict import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders")
    parser.add_argument(
        "--weights",
        required=True,
        help="file, directory, run of train.py, cached repository, or lite0, lite1, lite2",
    )
    add_weights_choice(parser)
    parser.add_argument("--classes", metavar="FILE", help="names of the classes")
    parser.add_argument("--top", type=positive_count, default=5, metavar="N", help="default: 5")
    add_crop_ratio(parser)
    parser.add_argument(
        "--batch-size", type=positive_count, default=32, metavar="N", help="default: 32"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, nothing else")


def run(args: argparse.Namespace) -> int:
    """Load the weights, go through the images, print as results come."""
    from rich.console import Console

    from deit_jax.evaluation.predict import (
        find_images,
        names_of_classes,
        predict,
        read_class_names,
    )
    from deit_jax.reports.terminal import say
    from deit_jax.runs.open_weights import read_weights
    from deit_jax.weights.load import complete_model

    paths = find_images(args.images)
    weights = read_weights(
        args.weights, which=args.which, checkpoint=args.checkpoint, model=args.model
    )
    model = complete_model(weights)
    if args.classes:
        names: Sequence[str] = read_class_names(args.classes, weights.num_classes)
        missing = ""
    else:
        names, missing = names_of_classes(weights)
    shown = weights.facts.preprocessing.require().keeping(args.crop_ratio)
    predictions = predict(
        model,
        paths,
        names,
        size=weights.image_size,
        preprocessing=shown,
        top=args.top,
        batch_size=args.batch_size,
    )
    console, done = Console(), []
    if not args.json:
        for note in filter(None, (weights.assumed, shown.note, missing)):
            say(console, note)
    for prediction in predictions:
        done.append(prediction)
        if prediction.note:
            print(f"note: {prediction.note}", file=sys.stderr)
        if prediction.error:
            print(f"skipped: {prediction.error}", file=sys.stderr)
        elif not args.json:
            _show(console, prediction)
    if args.json:
        content = {
            "model": weights.model_name,
            "weights": weights.source,
            "crop_ratio": float(shown.view.crop_ratio[0]),
            "preprocessing": shown.to_json(),
            "assumed": weights.assumed,
            "images": [_as_json(prediction) for prediction in done],
        }
        print(strict_json(content))
    return 1 if any(prediction.error for prediction in done) else 0


def _show(console: "Console", prediction: "Prediction") -> None:
    from deit_jax.reports.palette import HEAD_NAMES
    from deit_jax.reports.terminal import Column, print_table, say

    titles = HEAD_NAMES if len(prediction.heads) > 1 else {"class": "class"}
    say(console, prediction.path)
    columns = []
    for head in prediction.heads:
        columns += [Column(titles[head]), Column("%", True)]
    rows = [
        [text for guess in guesses for text in (guess.name, f"{100 * guess.probability:.2f}")]
        for guesses in zip(*prediction.heads.values(), strict=True)
    ]
    print_table(console, columns, rows)


def _as_json(prediction: "Prediction") -> dict:
    if prediction.error:
        return {"file": prediction.path, "error": prediction.error}
    heads = {h: [guess._asdict() for guess in guesses] for h, guesses in prediction.heads.items()}
    return {"file": prediction.path, "heads": heads}
