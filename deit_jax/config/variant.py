"""The text behind the colon of `--config=configs/family.py:what`: which experiment it is."""

import difflib
from collections.abc import Iterable


def choose(text: str, options: Iterable[str], what: str) -> str:
    """Return `text` if it is one of `options`.

    Raises:
        ValueError: otherwise, naming the options and the nearest one.
    """
    options = tuple(options)
    if text in options:
        return text
    near = difflib.get_close_matches(text, options, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what} {text!r} is unknown; choose from {', '.join(options)}.{hint}")


def choose_parts(text: str, *parts: tuple[str, Iterable[str]]) -> tuple[str, ...]:
    """Split "small,hard" at its commas and check every part against its (name, options).

    Raises:
        ValueError: if a part is missing, superfluous or unknown.
    """
    given = text.split(",") if text else []
    if len(given) != len(parts):
        form = ",".join(f"<{name}>" for name, _ in parts)
        raise ValueError(f"Give the experiment as {form} after the colon; got {text!r}.")
    return tuple(
        choose(value, options, name) for value, (name, options) in zip(given, parts, strict=True)
    )
