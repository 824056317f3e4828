"""What a run writes down about how it was started."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_jax.config.keys import leaves_by_key
from deit_jax.schema import RULES
from deit_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")


def circumstances() -> dict[str, Any]:
    """Return what else decides a run: overrides, command line, versions, commit."""
    versions = {"python": platform.python_version(), "deit_jax": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "overrides": _overrides(sys.argv),
        "command": sys.argv,
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Return what sets keys, as `config.a.b=value` in whichever of its forms it was given."""
    found = []
    remaining = iter(arguments)
    for argument in remaining:
        flag = argument.removeprefix("-").removeprefix("-")
        if flag == argument or not flag.startswith(("config.", "noconfig.")):
            continue
        if "=" not in flag:
            rule = RULES.get(flag.removeprefix("config."))
            if flag.startswith("no"):
                flag = f"{flag.removeprefix('no')}=False"
            elif rule is not None and rule.kind is bool:
                flag += "=True"
            else:
                flag += f"={next(remaining, '')}"
        found.append(flag)
    return found


def _git_commit() -> str:
    """Return the commit of the source tree, with "+changes" if files differ; "" outside of one."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
    try:
        found = subprocess.run([*git, "rev-parse", "--show-toplevel", "HEAD"], **options)
        top, _, commit = found.stdout.strip().partition("\n")
        # An installed package may lie inside the repository of something else.
        if found.returncode != 0 or Path(top).resolve() != root.resolve():
            return ""
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--"], **options).returncode
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f"{commit}+changes" if changed else commit


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return {dotted key: [old, new]} of what two nested configurations do not share.

    A value that one of them does not have is "(none)".
    """
    old, new = leaves_by_key(old), leaves_by_key(new)
    pairs = {key: [old.get(key, "(none)"), new.get(key, "(none)")] for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def listed(items: Sequence[Any], most: int = 5) -> str:
    """Return the first of some items as a phrase, and how many more there are."""
    more = [f"{len(items) - most:,} more"] if len(items) > most else []
    words = [*map(str, items[:most]), *more]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
