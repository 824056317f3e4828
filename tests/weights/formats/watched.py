"""What the interpreter does while a file is read, as its audit events tell."""

import contextlib

# zipfile and pickletools decode old forms of names; Python imports decoders when first needed.
import encodings.cp437
import encodings.raw_unicode_escape
import encodings.unicode_escape  # noqa: F401
import sys

_FORBIDDEN = ("exec", "compile", "import", "pickle.find_class", "builtins.input")
_FAMILIES = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "tempfile.", "code.", "urllib.")
_events: list[str] | None = None


def _hook(event, arguments):
    if _events is None:
        return
    mode = arguments[1] if event == "open" else None
    writes = event == "open" and (mode is None or not {*"wax+"}.isdisjoint(mode))
    if event in _FORBIDDEN or event.startswith(_FAMILIES) or writes:
        _events.append(f"{event}{arguments!r}"[:200])


# A hook cannot be removed again; this one does nothing outside `watched`.
sys.addaudithook(_hook)


@contextlib.contextmanager
def watched():
    """Collect the events of running code, starting programs, importing, and opening for writing."""
    global _events
    events: list[str] = []
    _events = events
    try:
        yield events
    finally:
        _events = None
