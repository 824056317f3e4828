import math
import time

import pytest

from deit_jax.training.clock import Clock


@pytest.fixture
def sleep(monkeypatch):
    """Return what lets time pass."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_wait_counts_where_the_devices_had_nothing_to_do(sleep):
    clock = Clock(before=0.0)
    clock.restart(10)
    for idle, seconds in ((True, 2.0), (False, 5.0), (True, 1.0)):
        with clock.waiting(lambda idle=idle: idle):
            sleep(seconds)
    # The loop had run ahead of the devices by a second's work.
    with clock.paused(lambda: sleep(1.0)):
        sleep(50.0)
    sleep(1.0)
    assert clock.waited() == pytest.approx(3.0 / 10.0)
    assert clock.rate(30) == pytest.approx(20 / 10.0)
    # The next line of the log begins anew.
    sleep(4.0)
    assert clock.waited() == 0.0


def test_no_rate_is_known_before_the_second_step(sleep):
    clock = Clock(before=0.0)
    sleep(60.0)
    clock.restart(101)
    sleep(0.5)
    assert math.isnan(clock.rate(101))
    sleep(2.0)
    assert clock.rate(105) == pytest.approx(4 / 2.0)
