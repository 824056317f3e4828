"""Words from a file inside a message: short, on one line, and without control characters."""

from collections.abc import Sequence


def quoted(text: object, most: int = 80) -> str:
    """Return a name from a file in quotes, as a terminal can show it."""
    whole = str(text)
    return repr(whole if len(whole) <= most else whole[:most] + "...")


def in_short(error: Exception) -> str:
    """Return what a library says of damaged content; it may repeat that content."""
    words = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(words.split())[:200].rstrip(".")


def some(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
