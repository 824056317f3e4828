"""Keeping compiled programs between starts: JAX's persistent cache, on unless told otherwise.

Compiling a train step takes from half a minute to several; a second start finds the program on
disk. `JAX_COMPILATION_CACHE_DIR` chooses another directory, `JAX_ENABLE_COMPILATION_CACHE=false`
does without.
"""

import contextlib
import hashlib
import os
import platform
import time
from pathlib import Path

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ENABLED = "JAX_ENABLE_COMPILATION_CACHE"
_DAYS_UNUSED = 30


def keep_compiled_programs() -> None:
    """Name a directory of the user's cache to JAX; call it before JAX is imported.

    Without a directory that can be written to, programs are compiled at every start.
    """
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
        times = entry.stat()
        if max(times.st_atime, times.st_mtime) < oldest:
            entry.unlink()
