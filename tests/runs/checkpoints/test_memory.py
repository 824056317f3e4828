"""Saving leaves nothing behind in memory."""

import gc

import pytest

from deit_jax.runs.checkpoints.manager import Checkpoints
from tests.runs.checkpoints.states import make_small


def held():
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.slow
def test_what_a_save_has_needed_is_given_back(tmp_path):
    counts = {}
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 16):
            checkpoints.save(step, make_small(step), meta={})
            checkpoints.wait()
            if step in (5, 15):
                counts[step] = held()
    # 48 lists for each save, while Orbax asked for TensorStore's counters. The first saves fill
    # caches; what differs from save to save after that is a few objects of threads.
    assert counts[15] - counts[5] < 100
