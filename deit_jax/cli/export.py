"""Export a model for programs that know nothing of this project; OUT is a new directory.

  stablehlo     a program of jax.export for CPUs, CUDA and TPUs (needs the extra `export`)
  onnx          a program for ONNX Runtime and others (needs the extra `onnx`)
  timm          weights and config.json for timm's create_model("local-dir:OUT", pretrained=True)
  transformers  weights, config and preprocessor for pipeline("image-classification", model="OUT")

Class names, preprocessing and a model card with what is known of the weights come along. What was
written is read back and compared with the model before it gets its name. `--int8` says how much
faster ONNX Runtime is with 8-bit weights here, and what they cost on a run's evaluation split or
the images that are named.

Example:
  python -m deit_jax export runs/small_hard served --format stablehlo --preprocess
  python -m deit_jax export runs/small_hard hub --format transformers --which ema
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.cli.arguments import add_place_arguments, add_weights_choice, asked_place

if TYPE_CHECKING:
    from deit_jax.data.source import Source
    from deit_jax.export.subject import ExportSubject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("weights", metavar="WEIGHTS", help="file, directory or run of train.py")
    parser.add_argument("out", metavar="OUT", help="a directory that does not exist yet")
    parser.add_argument(
        "--format",
        required=True,
        choices=("stablehlo", "onnx", "timm", "transformers"),
        help="who is to read it",
    )
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="stablehlo, onnx: images of any size in as they were decoded, probabilities out",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="onnx: model-int8.onnx besides, dynamically quantised; for transformers on CPUs",
    )
    add_place_arguments(parser)
    add_weights_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Read, write, compare, and say how far both are apart."""
    from rich.console import Console

    from deit_jax.export.directory import refuse_existing
    from deit_jax.export.formats import export
    from deit_jax.export.subject import open_export_subject
    from deit_jax.reports.terminal import say

    out, console = Path(args.out), Console()
    refuse_existing(out)
    subject = open_export_subject(
        args.weights, which=args.which, checkpoint=args.checkpoint, model=args.model
    )
    source = _labelled_images(args, subject)
    for note in subject.weights.notes:
        say(console, note)
    done = export(
        subject, out, args.format, preprocess=args.preprocess, int8=args.int8, source=source
    )
    files = ", ".join(f"{name} ({size:,} bytes)" for name, size in done.files.items())
    say(console, f"Written: {out}: {files}.")
    say(console, f"Largest difference from the model: {done.difference:.2g} ({done.what}).")
    if done.quantised:
        say(console, done.quantised.sentence())
    return 0


def _labelled_images(args: argparse.Namespace, subject: "ExportSubject") -> "Source | None":
    """Open those on which quantising is measured; None for weights that know of none."""
    from deit_jax.evaluation.subjects import choose_place, open_place, place_of

    asked = asked_place(args)
    if not args.int8:
        if any(asked.values()):
            raise ValueError(
                "--source, --directory and --split name the images on which --int8 is measured; "
                "give it, or leave them out."
            )
        return None
    own = place_of(subject.weights)
    if own is None and not any(asked.values()):
        return None
    return open_place(choose_place(own, args.weights, **asked))
