"""A command line with `--config.a.b=value`: its values, or in sentences what is wrong with it."""

import ast
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from deit_jax.config.conforming import assign, key_problems, value_problems
from deit_jax.config.families import find_config_file, no_config_file
from deit_jax.config.keys import nearest
from deit_jax.config.reference import apply_reference
from deit_jax.schema import RULES
from deit_jax.schema.declare import Rule, conform

_OVERRIDE = re.compile(r"--?(?P<no>no)?config\.(?P<key>[^=]*)(?P<text>=.*)?$", re.DOTALL)
_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class CommandLine(NamedTuple):
    """What a command line says about the configuration.

    Attributes:
        rest: arguments that are no override, in their order.
        overrides: values by dotted key; of a key that was given twice, the last.
        problems: a sentence for each override that names no key or has no possible value.
    """

    rest: list[str]
    overrides: dict[str, Any]
    problems: list[str]


def read_overrides(arguments: Sequence[str]) -> CommandLine:
    """Take every `--config.a.b=value` out of a command line.

    A value may also be the next argument; booleans may go without (`--config.a.b`,
    `--noconfig.a.b`).
    """
    line = CommandLine([], {}, [])
    remaining = iter(arguments)
    for argument in remaining:
        match = _OVERRIDE.match(argument)
        if not match:
            line.rest.append(argument)
            continue
        rule = RULES.get(match["key"])
        if rule is None:
            line.problems.append(_unknown(match["key"]))
            continue
        try:
            line.overrides[match["key"]] = _read(match, rule, remaining)
        except ValueError as error:
            line.problems.append(str(error))
    return line


def configure(config: Any, overrides: Mapping[str, Any]) -> list[str]:
    """Apply overrides to what a config file returned, and what `reference=True` sets.

    Args:
        config: changed in place; every value is then in the form of its key.
        overrides: from `read_overrides`.

    Returns:
        A sentence for each problem.

    Raises:
        OSError: there is no such file.
    """
    # A config file that could not be read says so when it is first looked into.
    if not hasattr(config, "keys") or not isinstance(config, ConfigDict):
        return [
            f"get_config() of the config file returned {type(config).__name__}, not a "
            "configuration; start from deit_jax.config.defaults.default_config()."
        ]
    if problems := list(key_problems(config)):
        return problems
    for key, value in overrides.items():
        assign(config, key, value)
    return list(value_problems(config)) or apply_reference(config, overrides)


def _read(match: re.Match[str], rule: Rule, remaining: Iterator[str]) -> Any:
    """Return the value of one override; takes the next argument if it stands there."""
    name, text = f"--config.{match['key']}", match["text"]
    if match["no"] and (text or rule.kind is not bool):
        raise ValueError(f"--noconfig.{match['key']} stands alone, for what is True or False.")
    if text is not None:
        text = text[1:]
    elif rule.kind is bool:
        text = "false" if match["no"] else "true"
    elif (text := next(remaining, None)) is None:
        raise ValueError(f"{name} has no value; write {name}=VALUE.")
    return conform(name, _literal(text, rule), rule)


def _literal(text: str, rule: Rule) -> Any:
    """Return what a text most likely means for this key; the text itself if nothing."""
    if rule.count:
        return _elements(text)
    try:
        if rule.kind is int:
            return int(text, 16 if text.lstrip("+-").lower().startswith("0x") else 10)
        if rule.kind is float:
            return float(text)
    except ValueError:
        return text
    return _WORDS.get(text.lower(), text) if rule.kind is bool else text


def _elements(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip() or "()")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _unknown(key: str) -> str:
    """Say that a key does not exist, and what may have been meant."""
    if "[" in key:
        return f"--config.{key} is a part of a key; set all of it, as in --config.a.b=0.5,1.0."
    if inside := next((name for name in RULES if name.startswith(f"{key}.")), None):
        return (
            f"--config.{key} is a group of keys; set them one by one, as in "
            f"--config.{inside}=VALUE."
        )
    return f"--config.{key} is no key of the configuration.{nearest(key, RULES)}"


def expand_config(arguments: Sequence[str]) -> list[str]:
    """Put the path of the file that `--config=FILE.py:WHAT` means in its place."""
    expanded = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if equals and name.lstrip("-") == "config":
            argument = f"{name}={find_config_file(value)}"
        elif before in ("--config", "-config"):
            argument = find_config_file(argument)
        expanded.append(argument)
    return expanded


def explain_flag_error(error: Exception) -> str:
    """Reduce what absl, ml_collections or a config file raises to the line that matters."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        # An exception inside a config file arrives as text; its last line says what it was.
        last = text.splitlines()[-1]
        kind, _, reason = last.partition(": ")
        return reason if kind == "ValueError" else f"{text.splitlines()[0]} {last}"
    # The config file itself, not one that it opens.
    tried = re.search(r"Attempted \[Relative path\]:\n *(.+)\n", text)
    if tried and not Path(tried[1]).is_file():
        return no_config_file(tried[1])
    sentence = " ".join(text.split())
    if isinstance(error, flags.Error | OSError | ValueError | SyntaxError):
        return sentence
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {sentence} ({place.filename}, line {place.lineno})."
