"""Keeping compiled programs between starts: JAX's persistent cache, on unless told otherwise.

Compiling a train step takes from half a minute to several; a second start finds the program on
disk. `JAX_COMPILATION_CACHE_DIR` chooses another directory, `JAX_ENABLE_COMPILATION_CACHE=false`
does without. A program that was damaged on disk is compiled and kept anew.
"""

import contextlib
import hashlib
import os
import platform
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ENABLED = "JAX_ENABLE_COMPILATION_CACHE"
_DAYS_UNUSED = 30
# How JAX, which leaves such an entry where it is and warns at every start, says it.
_UNREADABLE = re.compile(
    r"Error reading persistent compilation cache entry for '(.+?)': (?:error: )?(.*)"
)


def keep_compiled_programs() -> None:
    """Name a directory of the user's cache to JAX; call it before JAX is imported.

    Without a directory that can be written to, programs are compiled at every start.
    """
    _replace_damaged()
    if os.environ.get(_DIRECTORY) or os.environ.get(_ENABLED, "").lower() in ("0", "false", "no"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    # A home directory may be shared by machines whose processors differ.
    directory = Path(home).expanduser() / "deit_jax" / "programs" / _processor()
    with contextlib.suppress(OSError, RuntimeError):
        directory.mkdir(parents=True, exist_ok=True)
        _forget_unused(directory)
        if os.access(directory, os.W_OK):
            os.environ[_DIRECTORY] = str(directory)


def _processor() -> str:
    """Name this kind of processor: its architecture, and a hash of what it can do."""
    abilities = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features", "model name")):
                abilities += line
            elif abilities and not line.strip():
                break  # The other cores are alike.
    return f"{platform.machine()}-{hashlib.sha256(abilities.encode()).hexdigest()[:12]}"


def _forget_unused(directory: Path) -> None:
    """Remove programs that were not read for a month; JAX itself never does."""
    oldest = time.time() - _DAYS_UNUSED * 24 * 3600
    for entry in directory.iterdir():
        # Another process may have removed it; and XLA keeps a directory of its own among them.
        with contextlib.suppress(OSError):
            times = entry.stat()
            if max(times.st_atime, times.st_mtime) < oldest:
                entry.unlink()


def _replace_damaged() -> None:
    """Have JAX's warning of a program that cannot be read remove it, so that it is kept anew."""
    show, told = warnings.showwarning, False
    if show.__module__ == __name__:
        return

    def remove_and_tell(message: Any, *place: Any, **where: Any) -> None:
        nonlocal told
        found, directory = _UNREADABLE.match(str(message)), os.environ.get(_DIRECTORY)
        if not found or not directory:
            show(message, *place, **where)
            return
        # Only the program's name is told, not which of this name; a sound one costs its compiling.
        for entry in Path(directory).glob(f"{found[1]}-*-cache"):
            with contextlib.suppress(OSError):
                entry.unlink()
        if not told:
            print(
                f"Compiled programs kept in {directory} are damaged ({found[1]}: {found[2]}); they "
                "are compiled again and replaced.",
                file=sys.stderr,
            )
        told = True

    warnings.showwarning = remove_and_tell
