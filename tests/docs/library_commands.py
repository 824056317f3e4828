"""Commands of the library: what is put in place of their words, and what they have to leave."""

import argparse
import importlib
import json
import re
import shutil
from glob import glob
from pathlib import Path

from deit_jax.runs.open_weights import read_weights
from deit_jax.sweeps.plan import variants_of
from deit_jax.weights.load import complete_model
from tests.config.reduced import BATCH, save_weights, small_model
from tests.docs import stand_ins
from tests.docs.documented import commands

# Flags that make a command small; the last of two equal flags counts.
REDUCTIONS = {
    # Small copies of the paper's data sets.
    "prepare --dataset": ["--incomplete"],
    # One batch of eight, of the stand-in's classes, read by one worker instead of eight.
    "benchmark": [
        "--images=8",
        "--seconds=0.1",
        f"--config.training.batch_size={BATCH}",
        "--config.mix.group=0",
        "--config.data.workers=1",
        f"--config.model.num_classes={stand_ins.CLASSES}",
    ],
    # In place of deit_tiny_distilled_patch16_224, its default.
    "compare random:0": ["--model=deit_micro_distilled_patch4_16"],
    "compare random:0 --model deit_tiny_patch16_224": ["--model=deit_micro_patch4_16"],
}
# Where a word stands for what is written, it is left alone.
WRITTEN = ("--out", "--output", "--picture", "--workdir", "--collect")


def arguments_of(name, words):
    """Parse the words of a command as it does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    importlib.import_module(f"deit_jax.cli.{name}").add_arguments(parser)
    return parser.parse_args(words)


def reduced_words(name, words, reader):
    """Return the words with stand-ins for what is not there, and smaller numbers."""
    args = arguments_of(name, words)
    if name == "prepare":
        words = _prepare(args, words, reader)
    if name == "split":
        shutil.rmtree(args.output, ignore_errors=True)
        stand_ins.scenes(Path(args.folder))
    if name == "evaluate":
        # "MODEL [MODEL ...]" stands for one or more.
        words = ["runs/one", "runs/hard"] if "[MODEL" in words else words
    if name == "sweep" and len(args.seeds) > 2:
        # Two of three or five, or one where there are many variants.
        words = [*words, "--seeds", *(["0"] if len(_variants(args)) > 2 else ["0", "1"])]
    changed = []
    for before, word in zip([name, *words], words, strict=False):
        # What runs name is replaced when their configuration is reduced.
        kept = name in ("prepare", "sweep", "label") or before in WRITTEN
        changed += [word] if kept else _stand_in(word, reader)
    line = " ".join([name, *words])
    extra = [flags for start, flags in REDUCTIONS.items() if line.startswith(start)]
    # The longest of those that begin alike is meant.
    return changed + (extra[-1] if extra else [])


def _stand_in(word, reader):
    if glob(word):
        return sorted(glob(word)) if "*" in word else [word]
    if word.startswith("--config.data.directory="):
        kind = "folder" if word.endswith("DIR") else "prepared"
        return [f"--config.data.source={kind}", f"--config.data.directory={reader.data(kind)}"]
    if word.startswith("--config.teacher.weights="):
        return [f"--config.teacher.weights={reader.run('regnety_micro')}"]
    if re.fullmatch(r"runs/.*\*", word):
        return [str(_run(reader, f"{word[:-1]}{name}")) for name in ("teacher", "none", "hard")]
    if re.fullmatch(r"runs/[\w/]+", word):
        return [str(_run(reader, word))]
    if re.fullmatch(r"WEIGHTS|SRC|[\w-]+\.pth", word):
        return [save_weights(reader.root, small_model(word))]
    if re.fullmatch(r"[\w/]+\.(jpe?g|png)|\w+/", word):
        stand_ins.photograph(Path(word) / "photo.jpg" if word.endswith("/") else Path(word))
    if word == "real.json":
        stand_ins.real_labels(Path(word))
    if re.fullmatch(r"data/\w+", word):
        return [reader.data("prepared")]
    return [reader.data("folder")] if word == "IMAGENET" else [word]


def _variants(args):
    return args.variants or variants_of(args.config)


def _run(reader, path):
    """Link a micro run of the kind that the name tells to where the command has it."""
    token = "distilled_" if re.search("hard|soft|x$", path) else ""
    convnet = re.search("teacher|regnety", path)
    run = reader.run("regnety_micro" if convnet else f"deit_micro_{token}patch4_16")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).symlink_to(run)
    return path


def _prepare(args, words, reader):
    """Make what is to be prepared; every example has the OUTPUT to itself."""
    source = Path(args.source).expanduser()
    if args.output:
        shutil.rmtree(args.output, ignore_errors=True)
    if source.exists():
        return words
    if args.verify:
        shutil.copytree(reader.data("prepared"), source)
    elif args.dataset:
        source.parent.mkdir(parents=True, exist_ok=True)
        stand_ins.published(args.dataset, source)
    elif source.suffix == ".zip":
        stand_ins.class_archive(source)
    else:
        kind = "tfds" if "tensorflow_datasets" in args.source else "folder"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.symlink_to(reader.data(kind))
    return words


def run_before(command):
    """Return the documented command that makes what this one collects; "" if nothing is to do."""
    collected = re.search(r"sweep --collect (\S+)", command)
    if not collected or Path(collected[1]).exists():
        return ""
    makers = [c for _, c in commands() if re.search(rf"sweep .*--workdir {collected[1]}( |$)", c)]
    assert makers, f"nothing in the texts makes {collected[1]}"
    return makers[0]


# What each command leaves, given its arguments and what it printed.


def _models(args, printed):
    assert "| deit_base_distilled_patch16_224 " in printed


def _convert(args, printed):
    assert Path(args.destination).exists()
    read_back = read_weights(args.destination)
    assert read_back.layout == args.layout
    assert "head" in complete_model(read_back)[1]


def _compare(args, printed):
    assert "They agree" in printed
    assert Path(args.picture).stat().st_size > 10_000


def _predict(args, printed):
    if args.json:
        assert all("heads" in image for image in json.loads(printed)["images"])
    else:
        shares = re.findall(r"\| +\d+\.\d\d \|$", printed, re.MULTILINE)
        assert len(shares) >= args.top * len(args.images)


def _attention(args, printed):
    assert "| final norm |" in printed
    pictures = [
        *Path(args.output).glob("*/overview.png"),
        *Path(args.output).glob("*/difference.png"),
    ]
    assert len(pictures) == 2 * len(args.images)


def _export(args, printed):
    assert "Largest difference from the model: " in printed
    assert (Path(args.out) / "README.md").exists()


def _sweep(args, printed):
    if args.print_slurm:
        assert printed.startswith("#!/bin/bash\n")
        return
    if args.collect:
        assert "| " in (Path(args.collect[0]) / "tables.md").read_text()
        return
    runs = [f"{v.replace(',', '-')}-seed{n}" for v in _variants(args) for n in args.seeds]
    assert f"{len(runs)} of {len(runs)} runs have finished." in printed
    assert all((Path(args.workdir) / run / "result.json").exists() for run in runs)


def _report(args, printed):
    written = {file.name for file in Path(args.output).iterdir()}
    assert {"report.html", "report.md", "curves.png"} <= written
    assert not args.images or {"agreement.png", "confusion-1.png", "seen-1.png"} <= written
    assert "class head" in printed


def _evaluate(args, printed):
    if args.json:
        assert "top1" in json.loads(printed)["evaluation"]["class"]
        return
    assert printed.count("top-1 (%)") == len(args.models)
    assert not args.real or "ReaL (%)" in printed
    assert not args.disagreement or "(1) labels" in printed
    if args.output:
        assert (Path(args.output) / "agreement.md").exists()


def _prepared(args, printed):
    assert ", 0 problems" in printed
    assert (Path(args.output or args.source) / "manifest.json").exists()


def _benchmark(args, printed):
    assert "The whole input, as configured" in printed
    assert not args.measure or "measured" in printed


def _split(args, printed):
    assert printed.count("| class") == 1 + stand_ins.CLASSES
    assert {"split.json", "train", "val"} <= {path.name for path in Path(args.output).iterdir()}


def _label(args, printed):
    assert f"are in {args.output}: " in printed
    assert (Path(args.output) / "stream.json").exists()


def _augment(args, printed):
    assert Path(args.output).stat().st_size > 10_000


PRODUCTS = {
    "models": _models,
    "convert": _convert,
    "compare": _compare,
    "predict": _predict,
    "export": _export,
    "attention": _attention,
    "sweep": _sweep,
    "report": _report,
    "evaluate": _evaluate,
    "prepare": _prepared,
    "split": _split,
    "label": _label,
    "benchmark": _benchmark,
    "augment": _augment,
}
