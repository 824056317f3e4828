"""Look at what class and distillation token attend to, over the image as the model is shown it.

For each image a folder in DIR: overview.png (the mean of the heads in some blocks, and the rollout
through all), class.png, distillation.png and difference.png (every block and head). For models with
a distillation token also cosine.png: how alike both tokens are, layer by layer, on all images.
Blocks and heads are counted from 0, as in the names of weights. Needs matplotlib (extra `demo`).
Images that cannot be read are named and skipped; the exit code is then 1.

Example:
  python -m deit_jax attention --weights runs/small_hard cat.jpeg dog.jpeg --output attention
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.cli.arguments import add_crop_ratio, add_weights_choice

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from deit_jax.evaluation.attention import Looks
    from deit_jax.preprocessing import Preprocessing
    from deit_jax.reports.attention import Seen
    from deit_jax.weights.reading import Weights

_COSINES = "cosine.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders")
    parser.add_argument(
        "--weights", required=True, help="file, directory, run of train.py or cached repository"
    )
    parser.add_argument(
        "--output", "--out", required=True, metavar="DIR", help="where the pictures go"
    )
    add_weights_choice(parser)
    add_crop_ratio(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace pictures that are there already"
    )


def run(args: argparse.Namespace) -> int:
    """Load the weights, look at each image, draw, and say how alike the tokens are."""
    from rich.console import Console

    from deit_jax.evaluation.predict import find_images, read_view
    from deit_jax.extras import require
    from deit_jax.files import sentence
    from deit_jax.reports.attention import draw_attention
    from deit_jax.reports.terminal import say
    from deit_jax.runs.open_weights import read_weights

    require("matplotlib", "demo", "Drawing attention")
    paths, out = find_images(args.images), Path(args.output)
    folders = _folders(paths, out)
    taken = [path for path in (*folders, out / _COSINES) if path.exists()]
    if taken and not args.overwrite:
        raise FileExistsError(f"{taken[0]} exists already; give another --output, or --overwrite.")
    weights = read_weights(
        args.weights, which=args.which, checkpoint=args.checkpoint, model=args.model
    )
    shown = weights.facts.preprocessing.require().keeping(args.crop_ratio)
    console, found = Console(), []
    for note in filter(None, (weights.assumed, shown.note)):
        say(console, note)
    look = _compiled(weights, shown)
    # Of an earlier model, which had a token more.
    (out / _COSINES).unlink(missing_ok=True)
    for path, folder in zip(paths, folders, strict=True):
        try:
            pixels = read_view(path, weights.image_size, shown.view)
        except (OSError, ValueError) as error:
            print(f"skipped: {sentence(error)}", file=sys.stderr)
            continue
        found.append(look(pixels))
        seen = _seen(Path(path).name, pixels, found[-1], weights)
        say(console, f"Written: {folder} ({', '.join(draw_attention(seen, folder))})")
    if found and found[0].cosines.size:
        _show_cosines(console, found, weights.model_name, out / _COSINES)
    return 1 if len(found) < len(paths) else 0


def _folders(paths: list[str], out: Path) -> list[Path]:
    """Name a folder for each image; of equal names the later ones get a number."""
    names: list[str] = []
    for path in paths:
        stem, number = Path(path).stem, 1
        while (name := stem if number == 1 else f"{stem}-{number}") in names:
            number += 1
        names.append(name)
    return [out / name for name in names]


def _compiled(weights: "Weights", shown: "Preprocessing") -> "Callable[[np.ndarray], Looks]":
    """Return what looks at the pixels of one image; refuse models that cannot, before any does."""
    import jax

    from deit_jax.augment.normalise import to_input
    from deit_jax.evaluation.attention import look
    from deit_jax.weights.load import complete_model

    function, *trees = complete_model(weights)

    def run(trees: list, pixels: jax.Array) -> "Looks":
        return look(function.merge(*trees), to_input(pixels[None], shown.mean, shown.std))

    shape = jax.ShapeDtypeStruct((*weights.image_size, 3), "uint8")
    program = jax.jit(run).lower(trees, shape).compile()
    return lambda pixels: jax.device_get(program(trees, pixels))


def _seen(name: str, pixels: "np.ndarray", looks: "Looks", weights: "Weights") -> "Seen":
    """Say what is drawn: shares of attention on the patches, prefix tokens first."""
    import numpy as np

    from deit_jax.evaluation.attention import on_patches
    from deit_jax.reports.attention import Seen
    from deit_jax.weights.load import grid_of

    grid = grid_of(weights.params, weights.image_size)
    assert grid is not None  # Of a transformer.
    height, width = weights.image_size
    # The narrowest picture has room for so much.
    short = name if len(name) <= 30 else f"{name[:15]}...{name[-12:]}"
    return Seen(
        f"{short}, as the model is shown it ({height}x{width})",
        pixels,
        on_patches(np.asarray(looks.heads)[:, 0], grid).transpose(2, 0, 1, 3, 4),
        on_patches(np.asarray(looks.rollout)[:, 0], grid).transpose(1, 0, 2, 3),
    )


def _show_cosines(console: "Console", found: "list[Looks]", model: str, path: Path) -> None:
    import numpy as np

    from deit_jax.evaluation.attention import cosine_layers
    from deit_jax.reports.attention import draw_cosines
    from deit_jax.reports.terminal import Column, print_table, say

    cosines = np.concatenate([looks.cosines for looks in found], axis=1)
    layers = cosine_layers(len(cosines) - 3)
    columns = [Column("layer"), Column("cosine", True), Column("least", True), Column("most", True)]
    rows = [
        [layer, *(f"{value:.3f}" for value in (row.mean(), row.min(), row.max()))]
        for layer, row in zip(layers, cosines, strict=True)
    ]
    say(console, "Cosine between class and distillation token:")
    print_table(console, columns, rows)
    draw_cosines(cosines, layers, model, path)
    say(console, f"Written: {path}")
