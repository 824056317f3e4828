"""Every key of the schema with every wrong type, shape and size: one sentence that names it."""

import math
import re

import pytest

from deit_jax.config.command_line import configure, read_overrides
from deit_jax.config.conforming import assign
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.validate import validate
from deit_jax.schema import RULES
from deit_jax.schema.declare import conform
from deit_jax.sweeps.plan import read_config

DEFAULTS = leaves_by_key(default_config())
NUMBERS = [
    -8,
    -1,
    -0.5,
    0,
    0.0,
    1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    2**31,
    2**64,
    1e300,
]
OTHERS = [None, True, "", "yes", "~", "a\0b", b"x", object(), {}, {1}, len, 1j]
SEQUENCES = [
    [(), [], (1,), (1, 2, 3, 4), ("a", "b"), (None, None), ((1, 2), (3, 4)), [[]], (True, True)],
    [(number,) * count for number in NUMBERS for count in (2, 3)],
    # Falling, though each is possible.
    [(0.9, 0.1), (0.9, 0.5, 0.1)],
]
VALUES = [*NUMBERS, *OTHERS, *(value for group in SEQUENCES for value in group)]
TEXTS = [
    *(
        "",
        "yes",
        "big",
        "-8",
        "-0.5",
        "1e3",
        "1.5",
        "nan",
        "-inf",
        "1e999",
        "0x",
        "None",
        "'",
        "{}",
    ),
    *(
        "()",
        "(1,)",
        "1,2,3,4",
        "a,b",
        "[[1]]",
        "(1,(2,3))",
        "9" * 5000,
        "(" * 300,
        "\0",
        "[" * 9999,
    ),
]


def impossible(key, value):
    """Whether no reading of a value fits the type of the key's default; says nothing of bounds."""
    default = DEFAULTS[key]
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple):
            return not (key.endswith("image_size") and type(value) is int)
        length = {0: 3 if key.startswith("teacher") else 2}.get(len(default), len(default))
        whole = key.endswith("image_size")
        return not (len(value) == 0 and default == ()) and (
            len(value) != length
            or not all(type(v) is int or (type(v) is float and not whole) for v in value)
        )
    if isinstance(default, float):
        return type(value) not in (int, float)
    return type(value) is not type(default)


def names_it_in_one_line(problem, key):
    assert re.match(rf"(--)?config\.{re.escape(key)} ", problem), problem
    assert "\n" not in problem and len(problem) < 400 and problem[-1] in ".?", problem


# Checks that compare keys see a value of one key in five, alone among defaults, or of each.
@pytest.mark.slow
@pytest.mark.parametrize("beside", [5, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_every_key_answers_every_value(value, beside):
    config = default_config()
    for key in RULES:
        assign(config, key, value)
    if isinstance(value, dict):
        # Nothing is there any more.
        assert len(configure(config, {})) == len(RULES)
        return
    # ConfigDict itself writes True as 1.0 where a float was.
    given = leaves_by_key(config)
    problems = {
        problem.split()[0].removeprefix("config."): problem for problem in configure(config, {})
    }
    for key, problem in problems.items():
        names_it_in_one_line(problem, key)
    assert {key for key in RULES if impossible(key, given[key])} <= set(problems)
    taken = {key: leaves_by_key(config)[key] for key in RULES.keys() - problems.keys()}
    for key, form in taken.items():
        # It has the type that everything else counts on.
        assert type(form) is type(DEFAULTS[key])
        if isinstance(form, tuple) and DEFAULTS[key]:
            assert [type(v) for v in form] == [type(v) for v in DEFAULTS[key]]
        if isinstance(form, float):
            assert math.isfinite(form)
    # The checks that compare keys live with them, whatever they say: one by one, and all.
    config = default_config()
    for key, form in list(taken.items())[VALUES.index(value) % beside :: beside]:
        assign(config, key, form)
        validate(config)
        assign(config, key, DEFAULTS[key])
    for key, form in taken.items():
        assign(config, key, form)
    validate(config)


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:8].replace("\0", "null"))
def test_every_key_answers_every_override(text):
    taken = {}
    for key in RULES:
        line = read_overrides([f"--config.{key}={text}"])
        assert len(line.problems) + len(line.overrides) == 1
        for problem in line.problems:
            names_it_in_one_line(problem, key)
        if line.overrides:
            assert not impossible(key, line.overrides[key])
        taken |= line.overrides
    assert configure(default_config(), taken) == []


def test_numbers_that_no_float_holds():
    for key, rule in RULES.items():
        with pytest.raises(ValueError, match=rf"^{re.escape(key)} is a number of thousands of dig"):
            conform(key, 10**5000, rule)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.crop_scale", (0.5,), "two areas"),
        ("augment.erasing_area", 0.1, "two shares of the image"),
        ("augment.erasing_area", (0.3, 0.1), "low <= high"),
        ("augment.erasing_area", (0.3, 1.1), "<= 1"),
        ("augment.erasing_aspect", 1.1, "in (0, 1]"),
        ("augment.mean", 0.5, "three numbers"),
        ("augment.std", (0.2, 0.0, 0.2), "must be positive"),
        ("training.eval_mode", "yes", "True or False"),
        ("training.batch_size", "big", "a whole number"),
        ("training.batch_size", -8, "must be positive"),
        ("training.batch_size", 2**31, "at most 2,147,483,647"),
        ("model.num_classes", -1, "must be at least 0"),
        ("schedule.least_steps", -1, "must be at least 0"),
        ("seed", 2**64, "below 2**64"),
        ("seed", -1, "at least 0"),
        ("teacher.checkpoint", "²", "best, latest or a step"),
        ("optimizer.name", None, "one of adamw, sgd, lamb"),
    ],
)
def test_says_what_to_give(key, value, words):
    config = default_config()
    assign(config, key, value)
    (problem,) = configure(config, {})
    names_it_in_one_line(problem, key)
    assert words in problem


def test_what_means_the_same_is_written_in_one_form(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    config = default_config()
    config.model.image_size = 256
    config.data.crop_scale = [0.5, 1]
    config.schedule.epochs = 3
    config.data.directory = "~/images"
    config.model.weights = "~"
    config.teacher.classes = "./~"
    assert configure(config, {"teacher.image_size": 384}) == []
    assert config.model.image_size == (256, 256) and config.teacher.image_size == (384, 384)
    assert config.data.crop_scale == (0.5, 1.0) and type(config.data.crop_scale[1]) is float
    assert type(config.schedule.epochs) is float
    assert config.data.directory == "/home/someone/images"
    assert config.model.weights == "/home/someone" and config.teacher.classes == "./~"
    assert {key for key, rule in RULES.items() if rule.path} == {
        "data.directory",
        "model.weights",
        "teacher.labels",
        "teacher.weights",
        "teacher.classes",
    }


def test_a_config_file_that_returns_something_else():
    for value in (None, 3, {"seed": 1}):
        (problem,) = configure(value, {})
        assert "default_config()" in problem


def test_a_config_file_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "from configs.digits import get_config as digits\n\n\ndef get_config(what):\n"
    (tmp_path / "own.py").write_text(
        f"{text}    config = digits(what)\n    config.seed = 7\n    return config\n"
    )
    assert read_config("~/own.py:none", ["--config.model.image_size=32"]).model.image_size == (
        32,
        32,
    )
    assert read_config(f"{tmp_path}/own.py:none").seed == 7
