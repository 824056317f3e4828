"""Keeping freed memory for the next step on a CPU: settings of glibc, made before JAX starts.

XLA takes the memory of a program's intermediate results from the C library anew at every call.
glibc takes so much from the system and gives it back, so every step finds it unmapped, page by
page: a sixth of a train step's time (benchmarks/kept_memory.py, docs/cpu.md). Predicting takes an
eighth of that memory and gains nothing.
"""

import ctypes
import importlib.util
import os

# Of glibc's malloc.h, in this order: threads share one heap, the only kind that can be so large;
# nothing is mapped apart from it; and its end is never given back.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}

_kept = False


def keep_freed_memory() -> bool:
    """Let this process keep what it frees if its programs will run on a CPU; return if it does.

    Call it before a thread is started: how many heaps there may be is settled then. Whoever has
    set glibc's allocator by GLIBC_TUNABLES or MALLOC_* is not overruled, and where the C library
    is another one nothing is done.
    """
    global _kept
    if not _is_set_by_user() and _runs_on_cpu():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
        _kept = mallopt is not None and all(mallopt(*each) for each in _SETTINGS.values())
    return _kept


def give_back() -> None:
    """Give back what is free now; call it after work that will not come again soon.

    Compiling and evaluating leave gaps that a train step's memory does not fit into.
    """
    if _kept:
        ctypes.CDLL(None).malloc_trim(0)


def _is_set_by_user() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in os.environ
    )


def _runs_on_cpu() -> bool:
    """Return whether JAX is told to use the CPU, or has no plug-in for other devices."""
    if asked := os.environ.get("JAX_PLATFORMS"):
        return asked == "cpu"
    return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
