"""Write a data set as ArrayRecord shards, which train.py reads with data.source=prepared.

SOURCE is a folder or an archive (.tar, .zip) of images in SPLIT/CLASS/IMAGE, a folder with one
archive of CLASS/IMAGE for each split (train.tar, val.tar), or a data set that TensorFlow Datasets
prepared, in either format. With --dataset it is what the authors of that data set publish.
Archives are read as they are; nothing is unpacked to disk.

Every image is decoded once to see that it is sound; damaged ones are left out and named, and the
exit code is then 1. A command that was stopped goes on where it was when it is repeated.

Example:
  python -m deit_jax prepare DIR OUTPUT --splits train,val
  python -m deit_jax prepare images.zip OUTPUT --split train
  python -m deit_jax prepare --dataset cifar10 cifar-10-python.tar.gz OUTPUT
  python -m deit_jax prepare ~/tensorflow_datasets/food101 OUTPUT --splits train,validation
  python -m deit_jax prepare DIR OUTPUT --splits train,val --short-side 320 --quality 90
  python -m deit_jax prepare --verify OUTPUT

Resizing makes files and decoding smaller for good; crops of large images are then blurred and
compressed twice, so figures are no longer exactly comparable with the reference's.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from deit_jax.cli.arguments import between, positive_count
from deit_jax.reports.terminal import progress_bar

if TYPE_CHECKING:
    from deit_jax.data.source import Source

_LISTED = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("source", metavar="SOURCE", help="where the data set is")
    parser.add_argument("output", metavar="OUTPUT", nargs="?", help="a new directory")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--splits", default="train,val", help="separated by commas (default: train,val)"
    )
    which.add_argument("--split", help="SOURCE holds CLASS/IMAGE, which is this one split")
    which.add_argument(
        "--dataset",
        metavar="NAME",
        help="imagenet, imagenet_v2, cifar10, cifar100, flowers, cars, inat18 or inat19",
    )
    parser.add_argument(
        "--val-labels",
        default="",
        metavar="FILE",
        help="labels of ImageNet's validation images, if these lie in no class folders: a class "
        "for each image in order of name, or lines of its file name and its class, or "
        "ILSVRC2012_devkit_t12.tar.gz",
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="put up with other counts than --dataset has"
    )
    parser.add_argument(
        "--short-side",
        type=between(0),
        default=0,
        help="pixels; 0 keeps the files as they are (default)",
    )
    parser.add_argument(
        "--quality", type=between(1, 100), default=90, help="of resized JPEG (default: 90)"
    )
    parser.add_argument(
        "--shard-images", type=positive_count, default=2048, help="images in a file"
    )
    parser.add_argument(
        "--workers",
        type=positive_count,
        default=_cores(),
        help="processes (default: one for each core)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="only read a prepared SOURCE again, all of it"
    )


def run(args: argparse.Namespace) -> int:
    """Write or verify; 1 if an image is damaged."""
    from deit_jax.data.formats.prepared import read_prepared_manifest

    if args.verify:
        images = sum(s["images"] for s in read_prepared_manifest(args.source)["splits"].values())
        return _verify(Path(args.source), images, args.workers)
    if not args.output:
        raise ValueError("OUTPUT is missing: name the directory to write to.")
    return _write(_open(args), args)


def _open(args: argparse.Namespace) -> "dict[str, Source]":
    from deit_jax.data.open import open_alone, open_named, open_splits
    from deit_jax.data.papers.facts import missing_from
    from deit_jax.data.source import require_same_classes

    path = Path(args.source)
    if not path.exists():
        raise FileNotFoundError(f"No file or folder {str(path)!r}.")
    print(f"opening {path}", flush=True)
    if args.val_labels and args.dataset != "imagenet":
        raise ValueError("--val-labels is for --dataset imagenet.")
    if args.dataset:
        sources = open_named(args.dataset, path, args.val_labels)
        different = missing_from(args.dataset, sources)
        if different and not args.incomplete:
            raise ValueError(
                f"{path} is not all of {args.dataset}: {'; '.join(different)}. Complete it, or "
                "prepare what is there with --incomplete."
            )
        for phrase in different:
            print(f"incomplete: {phrase}")
    elif args.split:
        sources = open_alone(path, args.split)
    else:
        sources = open_splits(path, args.splits.split(","))
    first = next(iter(sources.values()))
    for source in sources.values():
        require_same_classes(first, source)
    return sources


def _cores() -> int:
    # Not all systems can say which cores are this process's.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write(sources: "dict[str, Source]", args: argparse.Namespace) -> int:
    from deit_jax.data.prepare.checked_records import Resize
    from deit_jax.data.prepare.write import write_prepared

    output = Path(args.output)
    for split, source in sources.items():
        print(f"{split}: {len(source):,} images of {source.num_classes:,} classes to {output}")
    total = sum(len(source) for source in sources.values())
    with progress_bar("preparing", total) as advance:
        manifest = write_prepared(
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
    code = _verify(output, total - len(manifest["damaged"]), args.workers)
    return 1 if manifest["damaged"] else code


def _verify(directory: Path, images: int, workers: int) -> int:
    from deit_jax.data.prepare.verify import verify

    with progress_bar("verifying", images) as advance:
        found = verify(directory, workers, advance)
    for oddity, names in found.oddities.items():
        print(f"unusual but sound, {len(names):,} images: {oddity}:")
        for name in names[:_LISTED]:
            print(f"  {name}")
        if len(names) > _LISTED:
            print(f"  and {len(names) - _LISTED:,} more")
    for sentence in found.problems:
        print(sentence)
    print(f"{directory}: {images:,} images read again, {len(found.problems)} problems")
    return 1 if found.problems else 0
