"""Segments of shared memory are removed when their process has ended, and no others."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from deit_jax.data.stream import shared_memory
from deit_jax.data.stream.shared_memory import FOLDER, ToShared, claim, make_no_more, remove_stale

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="shared memory is elsewhere")
ROOT = Path(__file__).parents[3]

READING = """
import time
from tests.inputs import train_input
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.stream.shared_memory import claim
from deit_jax.data.open import open_source

if __name__ == "__main__":
    options = train_input(image_size=(16, 16), batch_size=64, workers=2)
    batches = train_batches(open_source("digits", "train"), options, num_steps=10**6)
    # From both readers: one that is still starting speaks of a parent that has gone.
    for _ in range(4):
        next(batches)
    print(claim(), flush=True)
    time.sleep(60)
"""


def names(claimed):
    return {path.name for path in FOLDER.glob(f"{claimed}*")}


def processes(token):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if token in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_readers_and_segments_end_with_a_killed_process(tmp_path, number):
    script = tmp_path / "reading.py"
    script.write_text(READING)
    token = f"DEIT_JAX_TEST={tmp_path.name}-{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DEIT_JAX_TEST": token.partition("=")[2]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    claimed = process.stdout.readline().strip()
    assert len(names(claimed)) > 1 and len(processes(token.encode())) >= 3
    process.send_signal(number)
    process.wait()
    deadline = time.monotonic() + 30
    while processes(token.encode()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(token.encode()) == []
    assert names(claimed) == set()
    assert process.stderr.read() == ""


LEAVING = """
from deit_jax.data.stream.shared_memory import claim
from deit_jax.runs.interruption import leave_at_once

print(claim(), flush=True)
leave_at_once(143, "stopped")
"""


@pytest.mark.slow
def test_a_claim_goes_with_a_process_that_leaves_at_once():
    run = subprocess.run(
        [sys.executable, "-c", LEAVING], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    claimed = run.stdout.strip()
    assert claimed.startswith("deit_jax-") and names(claimed) == set()
    assert run.returncode == 143 and run.stderr == "stopped\n"


# Killed together with its resource tracker, as by a scheduler.
DYING = """
import os, signal
import numpy as np
from multiprocessing import resource_tracker
from deit_jax.data.stream.shared_memory import ToShared, claim

shared = ToShared(claim())(({"image": np.ones(5000)}, []))
print(claim(), flush=True)
os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_next_start_removes_what_a_dead_process_left_and_nothing_else():
    own = claim()
    kept, _ = ToShared(own)(({"image": np.arange(9)}, []))
    foreign = FOLDER / f"psm_{os.getpid()}"
    foreign.write_bytes(b"of another program")
    orphan = FOLDER / f"deit_jax-orphan{os.getpid()}-1"
    orphan.write_bytes(b"its claim is gone")
    empty = FOLDER / f"deit_jax-orphan{os.getpid()}-2"
    empty.write_bytes(b"")  # as a process leaves it that is killed before the segment has a size
    run = subprocess.run(
        [sys.executable, "-c", DYING], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    dead = run.stdout.strip()
    try:
        assert len(names(dead)) == 2, run.stderr
        remove_stale()
        assert names(dead) == set() and not orphan.exists() and not empty.exists()
        assert foreign.exists() and len(names(own)) >= 2
        np.testing.assert_array_equal(kept["image"], np.arange(9))
    finally:
        foreign.unlink()
        kept["image"].unlink_on_del()


def test_full_shared_memory_is_an_error_that_says_so(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    own = claim()
    before = names(own)
    monkeypatch.setattr(shared_memory.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="/dev/shm is full: a batch needs 96 KiB"):
        ToShared(own)(({"image": np.zeros((2, 128, 128, 3), np.uint8)}, []))
    # Those of earlier batches may go meanwhile.
    assert names(own) <= before


def test_a_reader_that_ends_makes_no_segment_after_it_has_removed_them(monkeypatch):
    # Its main thread goes on making batches until the process has ended.
    monkeypatch.setattr(shared_memory, "_MAKING", threading.Lock())
    name = "deit_jax-test000000ff"
    share = ToShared(name)
    share(({"image": np.zeros(4, np.uint8)}, None))
    assert names(name)
    make_no_more(name)
    reading = threading.Thread(
        target=share, args=[({"image": np.zeros(4, np.uint8)}, None)], daemon=True
    )
    reading.start()
    reading.join(timeout=0.2)
    assert reading.is_alive() and not names(name)
