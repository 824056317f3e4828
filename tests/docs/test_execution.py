"""Every documented command is executed, at reduced size; what cannot be is listed with the reason.

tests/docs/execution.py and library_commands.py say what is reduced, and how.
"""

import importlib
import json
import math
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest

from benchmarks import statistical_parity
from tests.docs.documented import FOREIGN, commands, completed
from tests.docs.execution import Reader, train_words
from tests.docs.library_commands import PRODUCTS, arguments_of, reduced_words, run_before

NOT_EXECUTED = {
    "make demo": "installs packages; its four runs and its report are executed as commands",
    "make test": "installs packages, and would run this test in itself",
    "make test-quick": "likewise",
    "pip install -e .": "installs packages",
    "pip install 'deit_jax[pretrained]'": "installs packages",
    "pip install 'deit_jax[tutorial]'": "installs packages",
    "pip install 'deit_jax[fast]'": "installs packages",
    "pip install 'deit_jax[plan]'": "installs packages",
    "python -m benchmarks.plan --devices h200,h100 --models deit_small_patch16_224 "
    "--modes train,inference": "needs compilers of 5 GB; tests/benchmarks/test_plan.py runs it",
    "python -m benchmarks.plan --devices h200:8,v5e:4x4 --config configs/distill.py:small,hard "
    "--steps train,evaluate": "likewise",
    "python -m benchmarks.plan --devices v5e:16x16 --config configs/deit.py:base": "likewise",
    "python -m benchmarks.gpu_slot --seconds 540": "needs a GPU; tests/benchmarks/test_gpu_slot.py "
    "asks all of it of tiny networks",
    "python -m deit_jax launch -n 2 --restarts 3 -- train.py --config configs/digits.py:none "
    "--workdir runs/none": "starts processes; tests/scale/test_training.py does",
    **FOREIGN,
}
# What sets small sizes; "" takes a flag away.
SMALL_BENCHMARKS = {
    "benchmarks.augmentation": {
        "--batch-size": "2",
        "--size": "16",
        "--repeats": "1",
        "--pillow-images": "1",
        "--memory-batch": "2",
        "--train-model": "deit_micro_patch4_16",
        "--train-batch-size": "2",
    },
    # PyTorch has no micro model, and memory is measured in other processes.
    "benchmarks.throughput": {
        "--models": "deit_micro_distilled_patch4_16,regnety_micro",
        "--modes": "inference",
        "--batch-sizes": "2",
        "--repeats": "1",
        "--turn-seconds": "0.01",
        "--against": "",
        "--memory": "",
    },
    "benchmarks.statistical_parity": {"--seeds": "2", "--kinds": "hard"},
    "benchmarks.residual": {"--seeds": "2", "--pairs": "2", "--steps": "1"},
    "benchmarks.digits": {"--seeds": "1"},
    "benchmarks.faults": {"--kills": "1", "--terms": "2", "--interrupts": "1"},
    "benchmarks.kills": {"--kills": "1"},
    "benchmarks.damage": {"--harms": "2", "--resumes": "1"},
    "benchmarks.soak": {"--steps": "400"},
    "benchmarks.kept_memory": {
        "--model": "deit_micro_patch4_16",
        "--batch-size": "4",
        "--rounds": "1",
    },
    "benchmarks.planning.scaling": {},
}
# What those print that write no page.
PRINTED = {
    "benchmarks.augmentation": "| timm, Pillow |",
    "benchmarks.damage": "harmed runs trained to the end",
    "benchmarks.kept_memory": "| kept |",
    "benchmarks.planning.scaling": "| DeiT-S ",
    "benchmarks.residual": "| training loss, last steps | ",
    "benchmarks.soak": "anonymous: ",
}
# Seconds each; together they are what the quick tests have of this.
QUICK = {
    "python -m deit_jax models",
    "python -m deit_jax models 'deit_*_distilled*'",
    "python -m deit_jax convert SRC DST --layout transformers",
    "python -m deit_jax prepare IMAGENET SHARDS --splits train,val",
}


def _once():
    """(page, command) of each command where it stands first; of each page's own preparations."""
    found = {}
    for page, command in commands():
        key = (page, command) if " prepare " in command else command
        found.setdefault(key, (page, command))
    return list(found.values())


def of_program(start):
    """Parameters of a test: page and command, long ones marked."""
    return [
        pytest.param(
            page,
            command,
            marks=() if command in QUICK else pytest.mark.full,
            id=f"{page}: {command.removeprefix('python ')[:70]}",
        )
        for page, command in _once()
        if command.startswith(start) and command not in NOT_EXECUTED
    ]


# In the order of the texts: a training finds what the command above it has prepared.
TYPED = of_program(("python train.py ", "python -m deit_jax "))
BENCHMARKS = of_program("python -m benchmarks.")

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.timeout(1200),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("reader"))


def test_every_command_is_executed_or_listed_with_a_reason():
    known = {command for _, command in commands()}
    executed = {parameter.values[1] for parameter in TYPED + BENCHMARKS}
    assert known == executed | NOT_EXECUTED.keys()
    assert executed >= QUICK
    benchmarks = {shlex.split(parameter.values[1])[2] for parameter in BENCHMARKS}
    assert benchmarks == SMALL_BENCHMARKS.keys()


@pytest.mark.parametrize(("page", "command"), TYPED)
def test_training_and_the_library(reader, page, command, capsys):
    with reader.at(page):
        if command.startswith("python train.py "):
            _training(reader, completed(command))
            return
        if before := run_before(command):
            _library(reader, before)
        capsys.readouterr()
        args = _library(reader, command)
        PRODUCTS[shlex.split(command)[3]](args, capsys.readouterr().out)


def _training(reader, command):
    assert reader.type(command) == 0
    workdir = Path(train_words(shlex.split(command)[2:])[1])
    result = json.loads((workdir / "result.json").read_text())
    assert math.isfinite(result["evaluation"]["raw"]["class"]["loss"])
    assert any((workdir / "checkpoints").iterdir())


def _library(reader, command):
    """Run a command of the library; return its arguments."""
    *program, name = shlex.split(command)[:4]
    words = reduced_words(name, shlex.split(completed(command))[4:], reader)
    assert reader.type(shlex.join([*program, name, *words])) == 0
    return arguments_of(name, words)


@pytest.mark.parametrize(("page", "command"), BENCHMARKS)
def test_benchmarks(reader, page, command, capsys, monkeypatch):
    _, _, name, *words = shlex.split(command)
    module = importlib.import_module(name)
    # Of statistical_parity: two epochs instead of 120.
    for key, value in {"epochs": 2.0, "warmup_epochs": 1.0}.items():
        monkeypatch.setitem(statistical_parity._OVERRIDES, f"schedule.{key}", value)
    words = _small(words, SMALL_BENCHMARKS[name])
    with reader.at(page) as here, mock.patch.object(sys, "argv", [name, *words]):
        before = set(here.rglob("*.md"))
        assert module.main() == 0
        if name in PRINTED and "--markdown" not in words:
            assert PRINTED[name] in capsys.readouterr().out
        else:
            (made,) = set(here.rglob("*.md")) - before
            assert re.search(r"^\|.*\d", made.read_text(), re.MULTILINE)


def _small(words, changes):
    """Replace, add or take away flags with their values."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        valued = before.startswith("--") and not word.startswith("--")
        if word not in changes and not (valued and before in changes):
            kept.append(word)
    return kept + [part for flag, value in changes.items() if value for part in (flag, value)]
