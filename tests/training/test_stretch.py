"""When a stretch of training evaluates."""

from types import SimpleNamespace

import pytest

from deit_jax.training.stretch import Stretch


@pytest.mark.parametrize(
    ("every_epochs", "steps_per_epoch", "due"),
    [(1.0, 2.5, [3, 5, 8, 10]), (0.5, 8.0, [4, 8]), (0.1, 5.0, range(1, 11))],
)
def test_an_evaluation_is_due_where_a_multiple_of_its_interval_is_passed(
    every_epochs, steps_per_epoch, due
):
    evaluation = SimpleNamespace(every_epochs=every_epochs)
    stretch = SimpleNamespace(
        config=SimpleNamespace(evaluation=evaluation),
        setup=SimpleNamespace(steps_per_epoch=steps_per_epoch),
    )
    assert [step for step in range(1, 11) if Stretch.evaluation_due(stretch, step)] == list(due)
    # Shorter than can be counted: of a step, no more than once.
    evaluation.every_epochs = 1e-320
    assert all(Stretch.evaluation_due(stretch, step) for step in range(1, 11))
