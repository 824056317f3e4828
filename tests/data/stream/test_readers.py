"""Reader threads and processes: their buffers, their end, and what they import."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from deit_jax.data.open import open_source
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.stream.options import buffer_bytes
from tests.inputs import train_input

SIZE = (16, 16)


@pytest.mark.slow
def test_a_killed_worker_ends_the_stream(image_folder):
    folder = open_source("folder", "train", str(image_folder))
    options = train_input(image_size=SIZE, batch_size=4, workers=2, threads=1, prefetch=1)
    before = set(multiprocessing.active_children())
    batches = train_batches(folder, options, num_steps=10**6)
    next(batches)
    children = set(multiprocessing.active_children()) - before
    assert len(children) == 2
    os.kill(children.pop().pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(ChildProcessError, match="reader process has died"):
        for _ in range(100):
            next(batches)
    # Takes 3 s on a quiet machine.
    assert time.monotonic() - begin < 30
    assert set(multiprocessing.active_children()) <= before
    assert list(batches) == []


@pytest.mark.slow
def test_closing_midway_leaves_no_reader_behind(image_folder):
    """Of threads; the script below closes a stream that processes read."""
    folder = open_source("folder", "train", str(image_folder))
    before = threading.active_count()
    batches = train_batches(folder, train_input(image_size=SIZE, batch_size=4), num_steps=10**6)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


SCRIPT = """
from itertools import islice
from tests.inputs import train_input
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.open import open_source

if __name__ == "__main__":
    options = train_input(image_size=(16, 16), batch_size=64, workers=1)
    source = open_source("digits", "train")
    batches = train_batches(source, options, num_steps=500)
    print(sum(len(b["label"]) for b in islice(batches, 5)))
    batches.close()
    assert list(batches) == []
"""


@pytest.mark.slow
def test_a_plain_script_with_workers_runs_and_says_nothing_else(tmp_path):
    # No absl.app.run, and nothing about leaked shared memory when the interpreter ends.
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(pathlib.Path(__file__).parents[3])
    run = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "320\n", "")


@pytest.mark.slow
def test_nothing_but_what_uses_grain_imports_jax():
    code = """
import importlib, importlib.util, pkgutil, sys, deit_jax.data
names = {m.name for m in pkgutil.walk_packages(deit_jax.data.__path__, "deit_jax.data.")}
names -= {f"deit_jax.data.stream.{name}" for name in ("loader", "shared_memory")}
if not importlib.util.find_spec("numba"):
    names.remove("deit_jax.data.images.resize_kernel")
for name in names:
    importlib.import_module(name)
    assert "jax" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_readers_stay_within_their_buffers(counted):
    for threads, prefetch, ahead in [(1, 3, 3), (4, 2, 4)]:
        options = train_input(image_size=SIZE, batch_size=1, threads=threads, prefetch=prefetch)
        source = counted(1000)
        with train_batches(source, options, num_steps=1000) as batches:
            for _ in range(5):
                next(batches)
            time.sleep(0.3)
            assert 5 <= source.reads <= 5 + ahead
        assert buffer_bytes(options) == ahead * 16 * 16 * 3


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="shared memory is elsewhere")
def test_too_little_shared_memory_is_said_before_it_kills(counted):
    options = train_input(image_size=(4096, 4096), batch_size=1024, workers=16)
    with pytest.raises(ValueError, match="--shm-size"):
        train_batches(counted(3), options, num_steps=1)
