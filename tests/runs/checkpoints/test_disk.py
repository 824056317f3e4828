"""A disk that is full: training goes on as long as it makes sense."""

import logging
import subprocess
import sys
import threading

import pytest

from deit_jax.runs.checkpoints.manager import Checkpoints
from tests.full_disk import full_disk
from tests.runs.checkpoints.states import (
    ABSTRACT,
    assert_same,
    make_state,
    names,
    save_all,
)

# A failed save leaves no errors of other threads behind, which pytest would find later.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
ORBAX = {"orbax.checkpoint._src.futures.future"}
# The large arrays fail where they would on a full disk: 16 x LARGE random floats do not fit.
ROOM, LARGE = 2**16, 3000


@pytest.mark.slow
def test_training_goes_on_when_the_disk_is_full(tmp_path, caplog):
    save_all(tmp_path, [50.0, 40.0, 30.0], keep_latest=2)
    with Checkpoints(tmp_path, keep_latest=2) as checkpoints, caplog.at_level(logging.WARNING):
        with full_disk(ROOM):
            checkpoints.save(4, make_state(4, width=LARGE), meta={}, metrics={"top1": 99.0})
            assert not checkpoints.wait()
            checkpoints.save(5, make_state(5, width=LARGE), meta={})
            assert not checkpoints.wait()
        assert checkpoints.failed_saves == 2
        ours = [r.getMessage() for r in caplog.records if r.name == "deit_jax"]
        assert len(ours) == 2
        assert f"A checkpoint was not saved: {tmp_path}/4: " in ours[0]
        assert "MB are free there" in ours[0]
        assert {"1", "2", "3"} <= set(names(tmp_path))
        assert checkpoints.best() == (1, 50.0)
        checkpoints.save(6, make_state(6), meta={})
        assert checkpoints.wait()
        # Nothing of the failed ones is left to fill the disk.
        assert names(tmp_path) == ["1", "3", "6"]
        assert_same(checkpoints.restore_latest(ABSTRACT).state, make_state(6))


def test_a_directory_that_takes_nothing_costs_no_time_and_leaves_no_thread(tmp_path):
    place = tmp_path / "checkpoints"
    with Checkpoints(place) as checkpoints:
        checkpoints.save(1, make_state(1), meta={})
        assert checkpoints.wait()
        place.rename(tmp_path / "aside")
        place.write_text("in the way")
        # Orbax's threads would wait for five minutes for the one that makes the directory.
        assert not checkpoints.save(2, make_state(2), meta={})
        assert not [one for one in threading.enumerate() if type(one).__module__ in ORBAX]
        place.unlink()
        (tmp_path / "aside").rename(place)
        checkpoints.save(3, make_state(3), meta={})
        assert checkpoints.wait() and checkpoints.failed_saves == 1
    assert names(place) == ["1", "3"]


def test_three_failures_in_a_row_end_the_run(tmp_path):
    with (
        pytest.raises(OSError, match=r"3 checkpoints in a row .* Make room or repair the disk"),
        Checkpoints(tmp_path) as checkpoints,
        full_disk(ROOM),
    ):
        for step in range(1, 10):
            checkpoints.save(step, make_state(step, width=LARGE), meta={})
    assert step in (3, 4)  # Writing goes on in the background; failures show at the next call.


def test_a_last_save_that_failed_is_an_error(tmp_path):
    with (
        full_disk(ROOM),
        pytest.raises(OSError, match="last checkpoint was not saved"),
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(1, make_state(1, width=LARGE), meta={})
    # But it does not hide what ended the run.
    with full_disk(ROOM), pytest.raises(KeyError), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1, width=LARGE), meta={})
        raise KeyError


@pytest.mark.slow
def test_a_program_does_not_wait_for_threads_that_wait_in_vain(tmp_path):
    program = """
import sys, threading, time
from deit_jax.cli import train

class Waiting(threading.Thread):
    pass

def fail(*_, **__):
    Waiting(target=time.sleep, args=(300,)).start()
    train.membership.leave(2, "error: no room")

Waiting.__module__, train.run_training = sys.argv[1], fail
train.start_training(["--config", "configs/digits.py:none", "--workdir", "unused"])
"""
    command = [sys.executable, "-c", program, *ORBAX]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: no room\n")
