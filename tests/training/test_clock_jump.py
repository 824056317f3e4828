"""A clock that is set back or forward by years while a run trains, stops and goes on."""

import time

import pytest

from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.interruption import Interrupted, Interruption
from deit_jax.training.loop import train
from tests import program
from tests.training.test_refusals import small

pytestmark = pytest.mark.slow

YEARS = 365 * 24 * 3600


class Jumps(Interruption):
    """Sets the clock at some steps, and gets a signal at one."""

    def __init__(self, clock, jumps, stop_at=0):
        super().__init__(leave=lambda code, line: None)
        self.clock, self.jumps, self.stop_at = clock, jumps, stop_at

    def begin(self, step):
        self.clock["offset"] += self.jumps.get(step, 0) * YEARS
        if step == self.stop_at:
            self.requested = True


@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    config, clock = small(checkpoint__every_steps=1, log__images=0), {"offset": 0}
    undisturbed = train(config, str(tmp_path / "undisturbed"))
    config.log.tensorboard = True
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + clock["offset"])
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + clock["offset"] * 10**9)
    workdir = tmp_path / "run"
    with pytest.raises(Interrupted, match="after step 3, saved"):
        train(config, str(workdir), interruption=Jumps(clock, {2: -10, 3: 30}, stop_at=3))
    # All that is on disk when it goes on is of the future.
    result = train(config, str(workdir), interruption=Jumps(clock, {4: -40, 5: 5}))
    assert clock["offset"] == -15 * YEARS
    for key in ("digest", "steps", "evaluation", "best"):
        assert result[key] == undisturbed[key]
    assert program.metrics(workdir) == program.metrics(tmp_path / "undisturbed")
    assert 0 <= result["seconds"] < YEARS
    # Orbax waits by the clock: a save during which it leaps ahead may be given up, and is said to.
    assert max(saved_steps(workdir / "checkpoints")) == result["steps"]
