"""A reader who types the commands of a page one after the other, everything at reduced size.

Commands run in this process, in a directory that each page has of its own, with what earlier
commands of the page have left there. What a command names and is not there is a stand-in: a run or
file of the micro model of the same family, a few images in place of a data set.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax

from deit_jax.cli.main import main
from deit_jax.config.validate import validate
from deit_jax.data.open import open_source
from deit_jax.sweeps import local, plan
from deit_jax.sweeps.plan import read_config
from deit_jax.training.loop import train
from tests import shapes
from tests.config.reduced import BATCH, describe, reduce, save_weights
from tests.docs import stand_ins
from tests.docs.documented import ROOT

# What shows that a directory holds data of this kind.
MARKS = {"folder": "train", "prepared": "manifest.json", "tfds": "dataset_info.json"}
# Configs whose reduced runs take the place of runs that a page does not make.
STAND_IN_RUNS = {
    "deit_micro_patch4_16": "configs/digits.py:none",
    "deit_micro_distilled_patch4_16": "configs/digits.py:hard",
    "regnety_micro": "configs/digits.py:teacher",
    "deit3_micro_patch4_16": "configs/deit3.py:base",
}


def train_words(words):
    """Return (experiment, workdir, overrides) of what follows `train.py`."""
    overrides = [word for word in words if word.startswith("--config.")]
    others = [part for word in words if word not in overrides for part in word.split("=", 1)]
    given = dict(zip(others[::2], others[1::2], strict=True))
    assert given.keys() == {"--config", "--workdir"}, "a flag that train.py does not have"
    return given["--config"], given["--workdir"], overrides


class Reader:
    """What is made once for all pages, and the directory of each.

    Args:
        root: a directory for all of it.
    """

    def __init__(self, root):
        self.root = root
        # Directories of runs by their reduced configuration: equal ones are made once.
        self.runs = {}

    @contextlib.contextmanager
    def at(self, page):
        """Work in the directory of a page, in which the checkout seems to lie."""
        directory = self.root / "pages" / re.sub(r"\W", "-", page)
        if not directory.exists():
            directory.mkdir(parents=True)
            for name in ("configs", "train.py"):
                (directory / name).symlink_to(ROOT / name)
            # Where the benchmarks' pages go.
            (directory / "benchmarks" / "results").mkdir(parents=True)
        home = {"HOME": str(directory)}
        replaced = mock.patch.object(subprocess, "run", self._subprocess(subprocess.run))
        swept = mock.patch.object(local, "_run", self._trained)
        with contextlib.chdir(directory), mock.patch.dict(os.environ, home), replaced, swept:
            yield directory

    def type(self, command):
        """Run a command of `train.py` or the library; return its exit code."""
        words = shlex.split(command)
        with mock.patch.object(sys, "argv", words[1:]):
            if words[1] == "train.py":
                self.train(words[2:])
                return 0
            with self._around(words[3]):
                return main(words[3:])

    def _around(self, name):
        """Return what a command of the library is run in."""
        if name == "label":
            return self._labelling()
        # Checked shapes have no symbolic sides.
        return shapes.unchecked() if name == "export" else contextlib.nullcontext()

    @contextlib.contextmanager
    def _labelling(self):
        """Let `label` have the reduced configuration of the runs that read its labels."""
        shrunk = mock.patch.object(plan, "read_config", lambda *a: self.shrink(read_config(*a)))
        # As in `shrink`.
        with shrunk, mock.patch.object(jax, "device_count", return_value=1):
            yield

    def train(self, words, *, always=False):
        """Run a command of train.py, unless an equal run is there to be linked to."""
        experiment, workdir, overrides = train_words(words)
        config = self.shrink(read_config(experiment, overrides))
        workdir, key = Path(workdir), describe(config)
        if key in self.runs and not always:
            workdir.parent.mkdir(parents=True, exist_ok=True)
            if not workdir.exists():
                workdir.symlink_to(self.runs[key])
        else:
            result = train(config, str(workdir))
            assert (result["steps"], result["skipped_steps"]) == (2, 0)
            self.runs.setdefault(key, workdir.resolve())
        return workdir

    def shrink(self, full):
        """Reduce a configuration; data, weights and teachers are the page's, or stand-ins."""
        config = reduce(full, self.root)
        config.evaluation.batch_size = 10 * BATCH
        kind = full.data.source
        if kind != "digits":
            assert full.data.directory, "needs --config.data.directory"
            directory = self.data(kind, full.data.directory)
            config.data.update(source=kind, directory=directory)
            config.data.update(train_split=full.data.train_split, eval_split=full.data.eval_split)
            source = open_source(kind, full.data.train_split, directory)
            config.model.num_classes = source.num_classes
            config.schedule.update(epochs=2 * BATCH / len(source))
            config.schedule.warmup_epochs = BATCH / len(source)
        if full.model.weights:
            config.model.weights = self.weights(full.model.weights, config.model.name)
        if full.distillation.kind != "none":
            assert full.teacher.weights, "needs --config.teacher.weights"
            config.teacher.weights = self.weights(full.teacher.weights, config.teacher.name)
            config.teacher.labels = full.teacher.labels
        # As for one device: a group that mixes is half of a batch.
        assert validate(config, device_count=1) == []
        return config

    def weights(self, given, name):
        """Return the run or file that is meant, or one of this model's."""
        if Path(given).exists():
            return str(Path(given).resolve())
        return str(save_weights(self.root, name) if Path(given).suffix else self.run(name))

    def run(self, name):
        """Return a run of a micro model, made once."""
        workdir = self.root / "runs" / name
        if not workdir.exists():
            with self.at("stand-ins"):
                words = [f"--config={STAND_IN_RUNS[name]}", f"--workdir={workdir}"]
                self.train([*words, "--config.data.directory=DIR"])
        return workdir.resolve()

    def data(self, kind, given=""):
        """Return the directory that is meant, or images of this kind."""
        if given and (Path(given) / MARKS[kind]).exists():
            return str(Path(given).resolve())
        if kind == "tfds":
            made = stand_ins.tensorflow_data_set(self.root / "tfds")
            return str(next(made.rglob(MARKS["tfds"])).parent)
        folder = stand_ins.image_folder(self.root / "IMAGENET")
        if kind == "folder":
            return str(folder)
        # The data sets of the paper have a split "test" where ImageNet has "val".
        output, test = self.root / "prepared", folder / "test"
        if not output.exists():
            test.symlink_to("val")
            assert main(["prepare", str(folder), str(output), "--splits=train,val,test"]) == 0
            test.unlink()
        return str(output)

    def _trained(self, command):
        """Run train.py in this process, as a sweep does in another; return its code and signal."""
        # `train.py FLAGS` or `-m deit_jax train FLAGS`.
        words = command[2:] if command[1] == "train.py" else command[4:]
        with mock.patch.object(sys, "argv", command[1:]):
            # A run of its own: what collects sweeps reads how each was started.
            self.train(words, always=True)
        return 0, 0

    def _subprocess(self, real):
        """Return what takes the place of `subprocess.run`: our programs stay in this process."""

        def run(command, *args, **options):
            if command[1:2] == ["train.py"]:
                code, _ = self._trained(command)
                return subprocess.CompletedProcess(command, code)
            if command[1:3] == ["-m", "deit_jax"]:
                return subprocess.CompletedProcess(command, main(command[3:]))
            return real(command, *args, **options)

        return run
