"""What a terminal shows of saves and restores that fail: sentences, and no traceback.

With as many arrays as a real state has, and in a process of its own: the tracebacks that Orbax once
left behind came from threads of C++, past everything that pytest can catch.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CHILD = """
import logging, pathlib, resource, shutil, sys
# Half a file of bytecode would stay, see tests/full_disk.py.
sys.dont_write_bytecode = True
import jax, jax.numpy as jnp
from deit_jax.runs.checkpoints.manager import Checkpoints

logging.basicConfig(format="%(message)s", force=True)
directory = pathlib.Path(sys.argv[1])

def make(step, size):
    one = jax.random.normal(jax.random.key(step), (size,))
    arrays = {f"array_{number}": one + number for number in range(60)}
    return {
        "step": jnp.int32(step),
        "params": arrays,
        "ema": {"params": {name: 2 * x for name, x in arrays.items()}, "batch_stats": {}},
        "opt_state": {name: 3 * x for name, x in arrays.items()},
    }

def spoil(item, how):
    for path in (directory / "2" / item).rglob("*"):
        if path.parent.name == "d" and how == "shortened":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif path.parent.name == "d" and how == "removed":
            path.unlink()
        elif path.name == "manifest.ocdbt" and how == "emptied":
            path.write_bytes(b"")

with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, make(1, 300), meta={})
abstract = jax.eval_shape(lambda: make(0, 300))
for item, how in [("params", "shortened"), ("training", "removed"), ("ema", "emptied")]:
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, make(2, 300), meta={})
    spoil(item, how)
    with Checkpoints(directory) as checkpoints:
        print("restored", checkpoints.restore_latest(abstract).step)
    shutil.rmtree(directory / "2.corrupt")

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
try:
    with Checkpoints(directory) as checkpoints:
        for step in range(2, 9):
            checkpoints.save(step, make(step, 30_000), meta={})
except OSError as error:
    print("error:", error)
print("left", sorted(path.name for path in directory.iterdir()))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Lines of both streams of the child, and its directory."""
    directory = tmp_path_factory.mktemp("terminal") / "checkpoints"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(directory)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines(), directory


def test_the_outcome_is_what_it_was(shown):
    out, _, directory = shown
    assert out[:3] == ["restored 1"] * 3
    assert out[3].startswith(f"error: 3 checkpoints in a row were not saved, last {directory}/")
    assert "File too large" in out[3]
    assert out[3].endswith("Make room or repair the disk, then give the same command again.")
    # No part of a failed save stays, nor is written after its removal.
    assert out[4] == "left ['1']"


def test_damage_and_a_full_disk_are_told_in_sentences_alone(shown):
    _, err, directory = shown
    assert not [line for line in err if "Traceback" in line or "Event loop" in line]
    # For each damage what it is and what was done; then the three saves.
    expected = [
        *[text for _ in range(3) for text in ("Checkpoint {}/2 is damaged", "Set checkpoint 2 as")],
        *["A checkpoint was not saved: {}"] * 3,
    ]
    assert len(err) == len(expected), err
    for line, text in zip(err, expected, strict=True):
        assert line.startswith(text.format(directory))
