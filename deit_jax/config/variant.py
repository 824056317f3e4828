"""The text behind the colon of `--config=configs/family.py:what`: which experiment it is."""

from collections.abc import Iterable

from deit_jax.config.keys import nearest


def choose(text: str, options: Iterable[str], what: str) -> str:
    """Return `text` if it is one of `options`.

    Raises:
        ValueError: otherwise, naming the options and the nearest one.
    """
    options = tuple(options)
    if text in options:
        return text
    listed = ", ".join(options)
    raise ValueError(f"{what} {text!r} is unknown; choose from {listed}.{nearest(text, options)}")


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
