"""A run killed at any moment ends with the same bits as one never interrupted.

Starts of train.py take most of the time of these tests: there are as few as show each thing.
"""

import os
import pathlib
import random
import re
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from deit_jax.runs.checkpoints.directory import read_manifests
from tests import program
from tests.config.reduced import save_weights

pytestmark = pytest.mark.slow

# An epoch ends every 3.1 steps, a checkpoint is written every 4, evaluations come in between.
SHORT = (
    "--config.data.train_images=100",
    "--config.training.batch_size=32",
    "--config.evaluation.every_epochs=3",
    "--config.schedule.warmup_epochs=2",
    "--config.checkpoint.every_steps=4",
    "--config.log.every_steps=5",
    # Which would import PyTorch where it is installed.
    "--config.log.tensorboard=False",
    "--config.data.eval_split=validation",
    "--config.model.drop_path_rate=0.1",
)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody interrupted."""

    experiment: str
    workdir: pathlib.Path
    flags: tuple[str, ...]
    steps: int


def run_undisturbed(folder, steps, what, model, *more):
    flags = (
        *SHORT,
        f"--config.schedule.epochs={steps * 0.32}",
        f"--config.model.name={model}",
        *more,
    )
    run = Undisturbed(f"configs/digits.py:{what}", folder / "first", flags, steps)
    code, output = program.run(run.experiment, run.workdir, *flags)
    assert code == 0, output
    assert f"Everything is in {run.workdir}; " in output.splitlines()[-1]
    return run


def wait_for_checkpoint(process, workdir):
    while not list(workdir.glob("checkpoints/[0-9]*")):
        assert process.poll() is None
        time.sleep(0.01)


def timed(run, workdir):
    """How long a run takes to its first checkpoint, and from there, once all is compiled."""
    process = program.start(run.experiment, workdir, *run.flags)
    begin = started(process)
    wait_for_checkpoint(process, workdir)
    saved = time.monotonic()
    process.communicate()
    assert_same(run.workdir, workdir)
    return saved - begin, time.monotonic() - saved


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    return run_undisturbed(folder, 14, "none", "deit_micro_patch4_16")


def started(process):
    """Wait until the run says what it is about to do; return the time."""
    for line in process.stdout:
        if "parameters)" in line:
            return time.monotonic()
    raise AssertionError("the run ended before it began")


def kill_and_finish(run, workdir, kills, seed):
    """Kill the run `kills` times at random moments, then let it end; return how many hit it."""
    moments = random.Random(seed)
    until_first, after_it = timed(run, workdir.with_name("timed"))
    longest = until_first + after_it / kills
    hits = 0
    for _ in range(kills):
        process = program.start(run.experiment, workdir, *run.flags)
        started(process)
        time.sleep(moments.uniform(0, longest))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(run, workdir)
    return hits


def finish(run, workdir):
    code, output = program.run(run.experiment, workdir, *run.flags)
    assert code == 0, output
    assert program.result(workdir)["steps"] == run.steps


def assert_same(a, b):
    assert program.metrics(a) == program.metrics(b)
    one, other = program.result(a), program.result(b)
    for key in ("steps", "digest", "evaluation", "best", "skipped_steps"):
        assert one[key] == other[key], key


# runs/checkpoints/test_kill.py kills what a run is made of.
@pytest.mark.full
def test_a_kill(undisturbed, tmp_path):
    process = program.start(undisturbed.experiment, tmp_path / "run", *undisturbed.flags)
    wait_for_checkpoint(process, tmp_path / "run")
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / "result.json").exists()
    finish(undisturbed, tmp_path / "run")
    assert_same(undisturbed.workdir, tmp_path / "run")


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_twenty_kills(tmp_path):
    teacher = f"--config.teacher.weights={save_weights(tmp_path, 'regnety_micro')}"
    run = run_undisturbed(tmp_path, 400, "hard", "deit_micro_distilled_patch4_16", teacher)
    assert kill_and_finish(run, tmp_path / "run", kills=20, seed=1) >= 15
    assert_same(run.workdir, tmp_path / "run")


def test_a_finished_run_changes_nothing_when_started_again(undisturbed, on_devices):
    run = undisturbed
    before = (run.workdir / "metrics.jsonl").read_text(), program.result(run.workdir)
    code, output = program.run_here(run.experiment, run.workdir, *run.flags)
    assert code == 0, output
    assert (run.workdir / "metrics.jsonl").read_text() == before[0]
    after = program.result(run.workdir)
    assert {**after, "seconds": 0} == {**before[1], "seconds": 0}


@pytest.mark.full
def test_damaged_records_are_counted_over_a_resume(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
        if number % 5 == 0:
            (folder / f"{number}.png").write_bytes(b"no image")
    flags = (
        "--config.data.source=folder",
        f"--config.data.directory={tmp_path / 'images'}",
        "--config.data.eval_split=train",
        "--config.data.train_images=0",
        "--config.data.max_damaged=8",
        "--config.model.num_classes=2",
        "--config.training.batch_size=4",
        "--config.schedule.epochs=6",
        "--config.schedule.warmup_epochs=1",
        "--config.checkpoint.every_steps=2",
        "--config.log.every_steps=1",
    )
    code, output = program.run("configs/digits.py:none", tmp_path / "first", *flags)
    assert code == 0, output
    counts = [
        line["damaged_records"]
        for line in program.metrics(tmp_path / "first")[:-1]
        if line["split"] == "train"
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1] == 8
    process = program.start("configs/digits.py:none", tmp_path / "again", *flags)
    # The third one: the first is then complete.
    while not list((tmp_path / "again").glob("checkpoints/6")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    code, output = program.run("configs/digits.py:none", tmp_path / "again", *flags)
    assert code == 0 and "starting" not in output, output
    assert_same(tmp_path / "first", tmp_path / "again")


def stopped_after(output, name):
    """The step that the run says it was stopped after by that signal."""
    found = re.search(rf"stopped by {name} after step (\d+), saved; the same command goes", output)
    assert found, output
    assert "Traceback" not in output
    return found.group(1)


# `train.py`, which gets SIGTERM during its first evaluation.
IN_AN_EVALUATION = """
import os, runpy, signal, sys, time
from deit_jax.runs.interruption import Interruption

watch, evaluations = Interruption.unless_requested, []

def unless_requested(self, items):
    evaluations.append(1)
    if len(evaluations) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        while not self.requested:
            time.sleep(0.01)
    return watch(self, items)

Interruption.unless_requested = unless_requested
runpy.run_path("train.py", run_name="__main__")
"""


def test_signals_cost_no_step_and_no_evaluation(undisturbed, tmp_path):
    run, workdir = undisturbed, tmp_path / "run"
    process = program.start(run.experiment, workdir, *run.flags, code=IN_AN_EVALUATION)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 143
    saved = stopped_after(output, "SIGTERM")
    assert max(os.listdir(workdir / "checkpoints"), key=int) == saved
    evaluated = [line["step"] for line in program.metrics(run.workdir) if line["split"] == "eval"]
    assert int(saved) == evaluated[0]
    assert not any(line["split"] == "eval" for line in program.metrics(workdir))
    # Ctrl-C, between steps, goes to the readers of a terminal's job too.
    process = program.start(
        run.experiment, workdir, *run.flags, "--config.data.workers=1", group=True
    )
    for line in process.stdout:
        if line.startswith("First step"):
            break
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    again = stopped_after(output, "SIGINT")
    assert int(again) > int(saved)
    code, output = program.run(run.experiment, workdir, *run.flags)
    assert code == 0 and f"continuing at step {again}" in output, output
    assert_same(run.workdir, workdir)
    kept, _ = read_manifests(workdir / "checkpoints")
    best = program.result(workdir)["best"]
    assert kept[best["step"]].score == best["value"]
    assert not any("owes_evaluation" in manifest.meta for manifest in kept.values())
