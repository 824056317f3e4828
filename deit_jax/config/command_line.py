"""What is wrong with a command line, in sentences."""

import re
from collections.abc import Iterable

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import flatten, nearest

_OVERRIDE = re.compile(r"--?config\.(?P<key>[\w.]+)(\[\d+\])?(=.*)?$")


def unknown_keys(arguments: Iterable[str]) -> list[str]:
    """Return a sentence for each `--config.a.b` that names no key, with the nearest that does."""
    known = flatten(default_config())
    groups = {key.rpartition(".")[0] for key in known} - {""}
    problems = []
    for argument in arguments:
        match = _OVERRIDE.match(argument)
        if not match or (key := match["key"]) in known:
            continue
        if key in groups:
            problems.append(
                f"--config.{key} is a group of keys; set them one by one, as in "
                f"--config.{next(name for name in known if name.startswith(key + '.'))}=VALUE."
            )
        else:
            problems.append(f"--config.{key} is no key of the configuration.{nearest(key, known)}")
    return problems


def explain_flag_error(error: Exception) -> str:
    """Reduce what absl and ml_collections raise to the line that matters."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        # An exception inside a config file arrives as text; its last line says what it was.
        last = text.splitlines()[-1]
        kind, _, reason = last.partition(": ")
        return reason if kind == "ValueError" else f"{text.splitlines()[0]} {last}"
    if "No such file or directory" in text:
        path = re.search(r"No such file or directory: '([^']+)'", text)
        return f"There is no config file {path[1] if path else ''}; see configs/."
    return " ".join(text.split())
