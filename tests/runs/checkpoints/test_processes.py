"""Two processes with two devices each save, find damage and resume together."""

import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from deit_jax.runs.checkpoints.saved_weights import restore_parameters
from deit_jax.runs.fingerprint import digest

pytestmark = pytest.mark.full

CHILD = """
import resource, sys
# Half a file of bytecode would stay, see tests/full_disk.py.
sys.dont_write_bytecode = True
from pathlib import Path
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

index, address, directory = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
full = {int(step) for step in sys.argv[4:]}
jax.distributed.initialize(
    address, 2, index, coordinator_bind_address=address, initialization_timeout=60,
    heartbeat_timeout_seconds=20, shutdown_timeout_seconds=30,
)
from deit_jax.runs.checkpoints.manager import Checkpoints

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
shardings = {
    "step": NamedSharding(mesh, P()),
    "params": {"split": NamedSharding(mesh, P("data")), "copied": NamedSharding(mesh, P())},
}

def initial():
    params = {"split": jax.random.normal(jax.random.key(0), (64, 33)), "copied": jnp.arange(3.0)}
    return {"step": jnp.int32(0), "params": params}

@jax.jit
def train_step(state):
    params = jax.tree.map(lambda x: x * 1.25 + 1, state["params"])
    return {"step": state["step"] + 1, "params": params}

abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    jax.eval_shape(initial), shardings,
)
with Checkpoints(directory) as checkpoints:
    restored = checkpoints.restore_latest(abstract)
    start = restored.step if restored else 0
    state = restored.state if restored else jax.jit(initial, out_shardings=shardings)()
    assert state["params"]["split"].addressable_shards[0].data.shape == (16, 33)
    for step in range(start + 1, 5):
        state = train_step(state)
        # For the second process alone: no file may grow as large as its part.
        room = 2**10 if index == 1 and step in full else 2**30
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        checkpoints.save(step, state, meta={}, metrics={"top1": -float(step)})
    checkpoints.wait()
from deit_jax.runs.fingerprint import digest

print("digest", digest(state["params"]))
print("failed", checkpoints.failed_saves, "started at", start, flush=True)
"""


def run_both(directory, *full):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(index), address, str(directory), *full],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    outputs = [child.communicate(timeout=250) for child in children]
    for child, (_, errors) in zip(children, outputs, strict=True):
        assert child.returncode == 0, errors
    return [output.split("started at")[-1].strip() for output, _ in outputs], outputs


def test_two_processes_agree(tmp_path):
    started, outputs = run_both(tmp_path)
    assert started == ["0", "0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4"]
    expected = restore_parameters(tmp_path, 4)[0]
    assert all(f"digest {digest(expected)}\n" in output for output, _ in outputs)
    # All of what the second process has written: single bits of values pass TensorStore, and are
    # then found by the fingerprints that both compute.
    for data in tmp_path.glob("4/params/ocdbt.process_1/d/*"):
        data.write_bytes(bytes(data.stat().st_size))
    started, outputs = run_both(tmp_path)
    assert started == ["3", "3"]
    # Only the one that reads those shards sees what is wrong; both must draw the same conclusion.
    assert "4 is damaged: another process cannot read its part" in outputs[0][1]
    assert "4 is damaged: params cannot be read" in outputs[1][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4", "4.corrupt"]
    for name, values in restore_parameters(tmp_path, 4)[0].items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_disk_that_is_full_for_one_process_is_for_both_and_training_goes_on(tmp_path):
    begin = time.monotonic()
    started, outputs = run_both(tmp_path, "2")
    assert started == ["0", "0"]
    # Orbax would wait for the other for ten minutes.
    assert time.monotonic() - begin < 250
    assert all("failed 1 started" in output for output, _ in outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4"]
    for (_, errors), reason in zip(outputs, ("another process", "File too large"), strict=True):
        assert re.search(rf"A checkpoint was not saved: \S+/2: {reason}", errors), errors
