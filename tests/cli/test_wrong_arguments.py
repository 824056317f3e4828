"""Every argument of every command and benchmark with wrong values, and with ~ for the home."""

import argparse
import importlib
import shlex
from pathlib import Path

import pytest

from deit_jax.cli import main
from deit_jax.cli.arguments import Parser, parse

# `train` reads the flags of absl.
COMMANDS = [name for name in main.COMMANDS if name != "train"]
BENCHMARKS = ("augmentation", "digits", "input", "statistical_parity", "throughput")
WRONG = (
    "",
    "word",
    "two\nlines",
    "-1",
    "-0.5",
    "1.5.2",
    "nan",
    "inf",
    "1e999",
    "²",
    "9" * 5000,
    "\0",
)


def parser(name):
    if name in COMMANDS:
        return main.parser_of(name)
    return importlib.import_module(f"benchmarks.{name}")._parser()


def arguments(command):
    """(action, what gives it a value in a whole command line) of every argument but flags."""
    required = [action for action in command._actions if action.required]
    for action in command._actions:
        if action.nargs == 0 or action.dest.startswith("config."):
            continue

        def line(text, action=action):
            others = [*required, action] if action not in required else required
            values = {other: str(min(other.choices or ["x"])) for other in others} | {action: text}
            return [word for a in others for word in (*a.option_strings[-1:], values[a])]

        yield action, line


@pytest.mark.parametrize("name", [*COMMANDS, *BENCHMARKS])
def test_wrong_values_are_one_sentence(name, capsys):
    command = parser(name)
    assert isinstance(command, Parser)
    for action, line in arguments(command):
        if action.type in (None, str, Path) and not action.choices:
            continue
        where = "/".join(action.option_strings) or action.metavar or action.dest
        for wrong in WRONG:
            try:
                value = getattr(parse(command, line(wrong)), action.dest)
            except SystemExit as left:
                error = capsys.readouterr().err
                assert left.code == 2
                assert error.startswith(f"error: argument {where}: "), error
                assert error.count("\n") == 1 and len(error) < 6000, error
            else:
                # None of them is a number that can be meant; what is taken is a name.
                names = value if isinstance(value, tuple | list) else [value]
                assert all(isinstance(name, str) for name in names), (where, wrong, value)


@pytest.mark.parametrize("name", [*COMMANDS, *BENCHMARKS])
def test_every_path_may_begin_at_home(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    command = parser(name)
    for action, line in arguments(command):
        if action.choices or action.type not in (None, str, Path):
            continue
        value = getattr(parse(command, line("~/x")), action.dest)
        value = value[0] if isinstance(value, list) else value
        assert str(value) == "/home/someone/x", (action.dest, value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "evaluate x --batch-size 0",
            "argument --batch-size: '0' is no whole number of at least 1",
        ),
        ("prepare x y --quality 101", "'101' is no whole number from 1 to 100"),
        ("predict x --weights w --crop-ratio 1.01", "is no share above 0 and up to 1"),
        (
            "sweep --seeds 0 18446744073709551616",
            "no whole number from 0 to 18,446,744,073,709,551,615",
        ),
        ("benchmark input --seconds 0", "'0' is no positive number"),
        ("augment x --size 15", "'15' is no whole number of at least 16"),
        ("compare x --against torch", "invalid choice: 'torch'"),
        ("input --repeats 1,0", "not a comma-separated list of whole numbers above 0"),
        ("statistical_parity --seeds 1", "of at least 2"),
    ],
)
def test_says_what_to_give(line, words, capsys):
    name, *words_given = shlex.split(line)
    with pytest.raises(SystemExit):
        parse(parser(name), words_given)
    assert words in capsys.readouterr().err


def test_only_a_leading_tilde_is_the_home():
    command = argparse.ArgumentParser()
    command.add_argument("--path", nargs="+", default=["~/d"])
    command.add_argument("--number", type=float, default=0.5)
    taken = parse(command, ["--path", "~/a", "b/~", "./~"])
    assert taken.path == [str(Path.home() / "a"), "b/~", "./~"]
    assert taken.number == 0.5 and parse(command, []).path == [str(Path.home() / "d")]
