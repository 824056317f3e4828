"""A run that is killed again and again ends with the same bits as one that never was."""

import hashlib
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.config.defaults import default_config
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import open_run
from deit_jax.runs.log import RunLog
from tests import program

pytestmark = pytest.mark.slow

STEPS = 40
CHILD = """
import sys
from tests.runs.checkpoints.test_kill import train
print("digest", train(sys.argv[1]), flush=True)
"""


def initial():
    weights = jax.random.normal(jax.random.key(0), (64, 48))
    return {"step": jnp.int32(0), "params": {"w": weights}, "ema": {"params": {"w": weights * 1}}}


@jax.jit
def train_step(state):
    # Everything depends on the step alone: what is lost must be computed again exactly.
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), state["step"]), (64, 48))
    weights = 0.9 * state["params"]["w"] + noise
    average = 0.5 * state["ema"]["params"]["w"] + 0.5 * weights
    new = {"step": state["step"] + 1, "params": {"w": weights}, "ema": {"params": {"w": average}}}
    return new, jnp.sum(weights**2)


def train(workdir):
    """Go on to the last step; return a digest of the state."""
    with open_run(workdir, default_config()) as run, Checkpoints(run.checkpoints) as checkpoints:
        restored = checkpoints.restore_latest(jax.eval_shape(initial))
        state = restored.state if restored else initial()
        start = restored.step if restored else 0
        with RunLog(run.path, resume_step=start, tensorboard=False) as log:
            for step in range(start + 1, STEPS + 1):
                state, loss = train_step(state)
                log.write(step, "train", {"loss": float(loss)})
                # The best is early and must stay.
                checkpoints.save(step, state, meta={}, metrics={"top1": float(-abs(step - 4))})
                print("saving", step, flush=True)
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def start_child(workdir):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(program.ROOT), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(workdir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(workdir):
    output, errors = start_child(workdir).communicate(timeout=120)
    assert "digest" in output, errors
    return output.split()[-1]


def inspect(workdir):
    steps = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return steps, lines


def kill_at_random(workdir, kills, rng):
    """Kill the run `kills` times, each at a random moment of some save; count torn saves."""
    torn = 0
    for _ in range(kills):
        child = start_child(workdir)
        for _ in range(rng.integers(1, 7)):
            assert child.stdout.readline().startswith("saving"), child.stderr.read()
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.communicate()
        names = [path.name for path in (workdir / "checkpoints").iterdir()]
        torn += any("orbax-checkpoint-tmp" in name for name in names)
    return torn


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "uninterrupted"
    return train(workdir), inspect(workdir)


def check_same_end(workdir, uninterrupted):
    digest, (steps, lines) = uninterrupted
    assert finish(workdir) == digest
    assert inspect(workdir) == (steps, lines)
    assert steps == ["39", "4", "40"]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))


def test_a_kill_changes_nothing(tmp_path, uninterrupted):
    kill_at_random(tmp_path / "run", 1, np.random.default_rng())
    check_same_end(tmp_path / "run", uninterrupted)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_fifty_kills_change_nothing(tmp_path, uninterrupted):
    rng = np.random.default_rng()
    torn = 0
    for trial in range(10):
        workdir = tmp_path / str(trial)
        torn += kill_at_random(workdir, 5, rng)
        check_same_end(workdir, uninterrupted)
    # Otherwise the kills came at moments that prove little.
    assert torn >= 10
