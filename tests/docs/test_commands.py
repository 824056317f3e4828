"""Every documented command is of one class, and is read as its program would read it.

The config of a training is built with its flags, at full size, and validated; others are parsed.
That they also run is for test_execution.py.
"""

import argparse
import importlib
import re
import shlex
import sys
import tomllib

import pytest

from deit_jax.cli.main import main
from deit_jax.config.validate import validate
from deit_jax.sweeps.plan import read_config
from tests import program
from tests.docs.documented import COMPLETED, FOREIGN, PAGES, ROOT, commands, completed

COMMANDS = sorted({command for _, command in commands()})
CLASSES = {
    "train": r"python train\.py ",
    "deit_jax": r"python -m deit_jax ",
    "benchmark": r"python -m benchmarks\.",
    "make": r"make ",
    "pip": r"pip install ",
}


def of_class(name):
    return [c for c in COMMANDS if re.match(CLASSES[name], c) and c not in FOREIGN]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_of_one_class(command):
    classes = [name for name, pattern in CLASSES.items() if re.match(pattern, command)]
    assert len(classes) + (command in FOREIGN) == 1, command


def test_commands_were_found_everywhere():
    places = {where for where, _ in commands()}
    assert {"README.md", "docs/data.md", "docs/results.md", "configs/distill.py"} <= places
    assert "deit_jax/cli/evaluate.py" in places
    assert len(COMMANDS) > 60
    for text in (*COMPLETED, *FOREIGN):
        assert any(command.startswith(text) for command in COMMANDS), f"{text} is in no text"


@pytest.mark.slow
@pytest.mark.parametrize("command", of_class("train"))
def test_train_commands_are_valid(command, tmp_path):
    _, script, *flags = shlex.split(completed(command))
    assert (ROOT / script).is_file()
    joined = [f for f in re.sub(r"(--\w+) (?=[^-])", r"\1=", " ".join(flags)).split() if f]
    (experiment,) = [f.removeprefix("--config=") for f in joined if f.startswith("--config=")]
    assert any(f.startswith("--workdir=") for f in joined)
    overrides = [f for f in joined if f.startswith("--config.")]
    assert len(joined) == len(overrides) + 2, "a flag that train.py does not have"
    config = read_config(experiment, overrides)
    if config.distillation.kind != "none":
        # Made by another command.
        assert config.teacher.weights, "needs --config.teacher.weights"
        config.teacher.weights = str(tmp_path)
    if config.data.source != "digits":
        assert config.data.directory, "needs --config.data.directory"
    assert validate(config, device_count=8) == []


@pytest.mark.parametrize("command", of_class("deit_jax"))
def test_commands_of_the_library_are_parsed(command, monkeypatch):
    _, _, _, name, *arguments = shlex.split(command)
    received = []
    module = importlib.import_module(f"deit_jax.cli.{name}")
    monkeypatch.setattr(module, "run", lambda args: received.append(args) or 0)
    assert main([name, *arguments]) == 0
    (args,) = received
    for variant in getattr(args, "variants", None) or ():
        read_config(f"{args.config}:{variant}", args.overrides)


@pytest.mark.parametrize("command", of_class("benchmark"))
def test_benchmarks_are_parsed(command, monkeypatch):
    name, *arguments = shlex.split(command)[2:]
    parse = argparse.ArgumentParser.parse_args

    class Parsed(Exception):
        """Nothing is measured."""

    def stop(self, *given):
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        importlib.import_module(name).main()


@pytest.mark.parametrize("command", of_class("make"))
def test_targets_exist(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", of_class("pip"))
def test_extras_exist(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"\[([\w,]+)\]", command):
        assert set(extra.split(",")) <= set(extras["optional-dependencies"])


def test_experiments_that_pages_name_exist():
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"configs/(\w+)\.py:([a-z0-9][\w,]*\w)", page.read_text()))
        # Short form in tables: `family:argument`.
        named |= {
            pair
            for pair in re.findall(r"`(\w+):([\w,]+)`", page.read_text())
            if (ROOT / "configs" / f"{pair[0]}.py").is_file()
        }
    assert len(named) > 20
    for family, argument in named:
        assert argument in importlib.import_module(f"configs.{family}").ARGUMENTS, argument


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_digits_and_what_follows_them_run(tmp_path, monkeypatch, capsys):
    """The commands of the small experiments, shortened to a few epochs, one after the other."""
    short = ("--config.schedule.epochs=4", "--config.schedule.warmup_epochs=1")
    weights = ("--config.model.weights=", "--config.teacher.weights=")
    done = 0
    for where, command in commands():
        if where not in ("configs/digits.py", "configs/digits_finetune.py"):
            continue
        _, _, _, experiment, _, workdir, *flags = shlex.split(command)
        flags = [f.replace("=runs/", f"={tmp_path}/runs/") for f in flags]
        if not any(f.startswith(weights) for f in flags) and ":teacher" not in experiment:
            flags.append(f"--config.teacher.weights={tmp_path}/runs/digits/teacher")
        code, output = program.run(experiment, tmp_path / workdir, *flags, *short)
        assert code == 0, output
        done += 1
    assert done == 5
    monkeypatch.chdir(tmp_path)
    runs = [f"runs/digits/{name}" for name in ("none", "soft", "hard")]
    for arguments in (
        ["report", *runs],
        ["evaluate", runs[-1]],
        ["convert", runs[-1], "hard.safetensors"],
        ["sweep", "--collect", "runs"],
    ):
        assert main(arguments) == 0, capsys.readouterr().err
