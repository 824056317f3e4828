"""A run killed at any moment ends with the same bits as one never interrupted."""

import random
import signal
import time

import pytest

from tests import program

# 45 steps that cross an epoch every 3.1 steps, with a checkpoint every 4 and evaluations between.
SHORT = (
    "--config.data.train_images=100",
    "--config.training.batch_size=32",
    "--config.evaluation.every_epochs=3",
    "--config.schedule.warmup_epochs=2",
    "--config.checkpoint.every_steps=4",
    "--config.log.every_steps=5",
)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    flags = (*SHORT, "--config.schedule.epochs=4")
    code, output = program.run("configs/digits.py:teacher", workdir, *flags)
    assert code == 0, output
    return workdir


@pytest.fixture(scope="session")
def undisturbed(teacher, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    flags = (*SHORT, "--config.schedule.epochs=14.4", f"--config.teacher.weights={teacher}")
    begin = time.monotonic()
    code, output = program.run("configs/digits.py:hard", workdir, *flags)
    assert code == 0, output
    return workdir, flags, time.monotonic() - begin


def kill_and_finish(undisturbed, workdir, kills, seed):
    """Kill the run `kills` times at random moments, then let it end; return the kills it took."""
    _, flags, seconds = undisturbed
    moments = random.Random(seed)
    landed = 0
    for _ in range(kills):
        process = program.start("configs/digits.py:hard", workdir, *flags)
        time.sleep(moments.uniform(0.3, 1.0) * seconds)
        landed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, output = program.run("configs/digits.py:hard", workdir, *flags)
    assert code == 0, output
    return landed


def assert_same(a, b):
    assert program.metrics(a) == program.metrics(b)
    one, other = program.result(a), program.result(b)
    assert one["steps"] == other["steps"] == 45
    for key in ("digest", "evaluation", "best", "skipped_steps"):
        assert one[key] == other[key], key


def test_three_kills(undisturbed, tmp_path):
    assert kill_and_finish(undisturbed, tmp_path / "run", kills=3, seed=0) >= 1
    assert_same(undisturbed[0], tmp_path / "run")


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_twenty_kills(undisturbed, tmp_path):
    assert kill_and_finish(undisturbed, tmp_path / "run", kills=20, seed=1) >= 10
    assert_same(undisturbed[0], tmp_path / "run")


def test_a_finished_run_changes_nothing_when_started_again(undisturbed):
    workdir, flags, _ = undisturbed
    before = (workdir / "metrics.jsonl").read_text(), program.result(workdir)
    code, output = program.run("configs/digits.py:hard", workdir, *flags)
    assert code == 0, output
    assert (workdir / "metrics.jsonl").read_text() == before[0]
    after = program.result(workdir)
    assert {**after, "seconds": 0} == {**before[1], "seconds": 0}


def test_stopped_and_continued_with_another_number_of_devices(undisturbed, tmp_path):
    # Bits differ between topologies; the state must still be readable and training sane.
    _, flags, _ = undisturbed
    process = program.start("configs/digits.py:hard", tmp_path / "run", *flags)
    while not list((tmp_path / "run").glob("checkpoints/[0-9]*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate()
    code, output = program.run("configs/digits.py:hard", tmp_path / "run", *flags, devices=2)
    assert code == 0, output
    assert program.result(tmp_path / "run")["steps"] == 45
