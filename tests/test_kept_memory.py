import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deit_jax import kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's C library")
ROOT = Path(__file__).parents[1]

# A thread takes, writes and frees 64 MiB four times: the page faults of the last two; then the
# pages that give_back() leaves of them.
TAKE = """
import ctypes, resource, threading
from deit_jax.kept_memory import give_back, keep_freed_memory

def pages():
    return int(open("/proc/self/statm").read().split()[1])

def take():
    libc, size, begun = ctypes.CDLL(None), ctypes.c_size_t(64 << 20), pages()
    libc.malloc.restype = ctypes.c_void_p
    for call in range(4):
        if call == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        address = ctypes.c_void_p(libc.malloc(size))
        libc.memset(address, 1, size)
        libc.free(address)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    kept = pages() - begun
    give_back()
    print(faults, kept, pages() - begun)

keep_freed_memory()
thread = threading.Thread(target=take)
thread.start()
thread.join()
"""
PAGES = (64 << 20) // os.sysconf("SC_PAGE_SIZE")


def run(code, **environment):
    """Run the code in a process whose allocator only this environment has set."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**others, "GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_what_a_thread_frees_is_not_fetched_again():
    faults, kept, left = map(int, run(TAKE).split())
    # A few pages more or less are those of Python and of the heap's own books.
    assert faults < 100 and abs(kept - PAGES) < 1000 and abs(left) < 1000


def test_who_sets_the_allocator_is_not_overruled():
    faults, *_ = map(int, run(TAKE, MALLOC_ARENA_MAX="4").split())
    assert faults >= 2 * PAGES


@pytest.mark.parametrize("program", ["train.py", "deit_jax/__main__.py"])
def test_it_is_set_before_there_is_a_thread(program):
    """A thread's first memory settles how many heaps there may be."""
    begin = f"""
import runpy, sys, threading
from deit_jax import kept_memory
from deit_jax.runs.interruption import Interruption

def install():
    print(kept_memory._kept, threading.active_count(), {{"jax", "numpy"}} & set(sys.modules))
    sys.exit()

Interruption.install = install
sys.argv = ["deit-jax", "train"]
runpy.run_path({program!r}, run_name="__main__")
"""
    assert run(begin) == "True 1 set()\n"


@pytest.mark.parametrize(
    ("environment", "installed", "kept"),
    [
        ({}, (), True),
        ({"JAX_PLATFORMS": "cpu"}, ("jax_plugins",), True),
        ({}, ("jax_plugins",), False),
        ({}, ("libtpu",), False),
        ({"JAX_PLATFORMS": "cuda,cpu"}, (), False),
        ({"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}, (), True),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, (), False),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, (), False),
    ],
)
def test_only_a_process_for_the_cpu_keeps(monkeypatch, environment, installed, kept):
    # Setting it in earnest would hold for all tests of this process.
    library = SimpleNamespace(mallopt=lambda setting, value: 1)
    monkeypatch.setattr(kept_memory.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(kept_memory, "_kept", False)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(kept_memory.importlib.util, "find_spec", lambda name: name in installed)
    assert kept_memory.keep_freed_memory() is kept
