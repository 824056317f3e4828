"""Training in two processes: one is killed, both start again, a signal stops them, one goes on.

What comes of it is compared with a run of one process that nothing disturbed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import program

EXPERIMENT = "configs/digits.py:none"
FLAGS = (
    "--config.model.name=deit_micro_patch4_16",
    "--config.data.train_images=96",
    "--config.training.batch_size=32",
    "--config.schedule.epochs=30",
    "--config.schedule.warmup_epochs=2",
    "--config.checkpoint.every_steps=10",
    "--config.evaluation.every_epochs=1000",
    "--config.log.every_steps=1",
    "--config.log.tensorboard=False",
)
STEPS = 90


def start(words, errors, **environment):
    """Start a command of the project, in processes of one device each."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=program.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**program._ENVIRONMENT, **environment},
    )


def children(process):
    """{JAX_PROCESS_ID: process id} of the training processes that a launcher has started."""
    found = {}
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        match = re.search(rb"JAX_PROCESS_ID=(\d)", Path(f"/proc/{number}/environ").read_bytes())
        # Between fork and exec it has no variables yet.
        if match:
            found[int(match[1])] = int(number)
    return found


def steps_logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition, process=None):
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.02)


def losses(workdir):
    rows = [row for row in program.metrics(workdir) if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([row["loss"] for row in rows])


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What happened: the directory, what was printed, how long things took."""
    folder = tmp_path_factory.mktemp("many")
    workdir, told = folder / "run", {"folder": folder}
    with open(folder / "errors", "w+") as errors:
        words = ["train.py", f"--config={EXPERIMENT}", f"--workdir={workdir}", *FLAGS]
        launch = ["-m", "deit_jax", "launch", "-n", "2", "--restarts", "1", "--"]
        launcher = start([*launch, *words], errors)
        wait_until(lambda: steps_logged(workdir) >= 15, launcher)
        both, begin = children(launcher), time.monotonic()
        os.kill(both[1], signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{both[0]}").exists())
        told["seconds"] = time.monotonic() - begin
        told["killed after"] = steps_logged(workdir)
        wait_until(lambda: set(children(launcher).values()) - set(both.values()), launcher)
        wait_until(lambda: steps_logged(workdir) >= told["killed after"] + 10, launcher)
        launcher.send_signal(signal.SIGTERM)
        told["code"] = launcher.wait(60)
    told["errors"] = (folder / "errors").read_text()
    told["steps"] = steps_logged(workdir)
    told["checkpoints"] = sorted(int(path.name) for path in workdir.glob("checkpoints/[0-9]*"))
    shutil.copytree(workdir, folder / "eight")
    told["one"] = program.run(EXPERIMENT, workdir, *FLAGS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jax.device_count", lambda *_: 1)
        told["alone"] = program.run_here(EXPERIMENT, folder / "alone", *FLAGS)
    return told


# Five processes, each of which imports and compiles for itself: long, but the one training in two
# processes that every change goes through.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_death_of_one_ends_the_other_at_once_with_its_name(story):
    assert story["seconds"] < 10
    assert re.search(
        r"^error: process 1 \(process \d+ on \S+\) has ended without a word", story["errors"], re.M
    )
    assert (
        "launch: process 1 of 2 was ended by SIGKILL; all are started again (1 of 1)."
        in (story["errors"])
    )
    assert "Traceback" not in story["errors"]


def test_a_signal_stops_all_after_one_step_that_is_saved(story):
    assert story["code"] == 143
    # Said by the first alone.
    assert story["errors"].count("stopped by") == 1
    assert f"stopped by SIGTERM after step {story['steps']}, saved; the same" in story["errors"]
    assert story["checkpoints"][-1] == story["steps"]


def test_one_process_goes_on_and_says_that_bits_differ(story):
    code, output = story["one"]
    assert code == 0, output
    assert f"continuing at step {story['steps']}" in output
    assert "2 x cpu in 2 process(es) -> 1 x cpu in 1 process(es)" in output
    record = json.loads((story["folder"] / "run" / "config.json").read_text())
    assert record["made_from"]["devices"] == {
        "kind": "cpu",
        "count": 1,
        "processes": 1,
        "fsdp": 1,
    }
    assert any("2 process(es)" in text for h in record["history"] for text in h.get("replaced", ()))


def test_the_losses_are_those_of_one_process(story):
    code, output = story["alone"]
    assert code == 0, output
    many, alone = (losses(story["folder"] / name) for name in ("run", "alone"))
    assert len(many) == len(alone) == STEPS
    # Other sums in other orders: float32 rounding at first, which training then enlarges.
    np.testing.assert_allclose(many[:50], alone[:50], atol=2e-5, rtol=0)
    np.testing.assert_allclose(many, alone, atol=2e-3, rtol=0)


@pytest.mark.full
def test_eight_devices_of_one_process_go_on_too(story):
    code, output = program.run(EXPERIMENT, story["folder"] / "eight", *FLAGS, devices=8)
    assert code == 0, output
    assert "2 x cpu in 2 process(es) -> 8 x cpu in 1 process(es)" in output
    many, alone = (losses(story["folder"] / name) for name in ("eight", "alone"))
    np.testing.assert_allclose(many, alone, atol=2e-3, rtol=0)
