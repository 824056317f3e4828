"""Write a data set as ArrayRecord shards, which train.py reads with data.source=prepared.

Every image is decoded once to see that it is sound; damaged ones are left out and named, and the
exit code is then 1. A command that was stopped goes on where it was when it is repeated.

Example:
  python -m deit_jax prepare DIR OUTPUT --splits train,val
  python -m deit_jax prepare DIR OUTPUT --source tfds --splits train,validation
  python -m deit_jax prepare DIR OUTPUT --splits train,val --short-side 320 --quality 90
  python -m deit_jax prepare --verify OUTPUT

Resizing makes files and decoding smaller for good; crops of large images are then blurred and
compressed twice, so figures are no longer exactly comparable with the reference's.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("directory", metavar="DIR", help="where the data set is")
    parser.add_argument("output", metavar="OUTPUT", nargs="?", help="a new directory")
    parser.add_argument("--source", choices=("folder", "tfds"), default="folder")
    parser.add_argument("--splits", default="train,val", help="separated by commas")
    parser.add_argument(
        "--short-side", type=int, default=0, help="pixels; 0 keeps the files as they are (default)"
    )
    parser.add_argument("--quality", type=int, default=90, help="of resized JPEG (default: 90)")
    parser.add_argument("--shard-images", type=int, default=2048, help="images in a file")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--verify", action="store_true", help="only read a prepared DIR again, all of it"
    )


def run(args: argparse.Namespace) -> int:
    """Write or verify; 1 if an image is damaged."""
    from deit_jax.data.prepared import read_manifest

    if args.verify:
        images = sum(s["images"] for s in read_manifest(args.directory)["splits"].values())
        return _verify(Path(args.directory).expanduser(), images)
    if not args.output:
        raise ValueError("OUTPUT is missing: name the directory to write to.")
    if args.short_side < 0 or not 1 <= args.quality <= 100 or args.shard_images < 1:
        raise ValueError("--short-side must be >= 0, --quality 1 to 100, --shard-images positive.")
    return _write(args)


def _write(args: argparse.Namespace) -> int:
    from deit_jax.data.preparing import Resize, prepare
    from deit_jax.data.sources import open_source, require_same_classes

    sources = {
        split: open_source(args.source, split, args.directory) for split in args.splits.split(",")
    }
    first = next(iter(sources.values()))
    for source in sources.values():
        require_same_classes(first, source)
    output = Path(args.output).expanduser()
    total = sum(len(source) for source in sources.values())
    with _bar("preparing", total) as advance:
        manifest = prepare(
            sources,
            output,
            resizing=Resize(args.short_side, args.quality),
            shard_images=args.shard_images,
            workers=args.workers,
            progress=advance,
        )
    for split, contents in manifest["splits"].items():
        print(f"{split}: {contents['images']:,} images in {len(contents['shards'])} files")
    for split, _, name, reason in manifest["damaged"]:
        print(f"damaged, left out of {split}: {name}: {reason}")
    code = _verify(output, total - len(manifest["damaged"]))
    return 1 if manifest["damaged"] else code


def _verify(directory: Path, images: int) -> int:
    from deit_jax.data.verifying import verify

    with _bar("verifying", images) as advance:
        wrong = verify(directory, advance)
    for sentence in wrong:
        print(sentence)
    print(f"{directory}: {images:,} images read again, {len(wrong)} problems")
    return 1 if wrong else 0


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left; gives the function that moves it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda images: progress.advance(task, images)
