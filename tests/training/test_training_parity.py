"""The train step in lock-step with the reference's loop, for every loss a run can have."""

import jax
import numpy as np
import pytest

from deit_jax.schema.images import UNMIXED
from deit_jax.weights.transformer_layout import to_foreign
from tests.training.pytorch_loop import EPOCHS, MIXING, our_run, recipe, torch_run


def run_both(config, distilled, steps_per_epoch, mixing=MIXING):
    start, teacher, losses, state = our_run(config, distilled, steps_per_epoch, mixing)
    expected, model, average = torch_run(start, teacher, config, distilled, steps_per_epoch, mixing)
    assert int(state["skipped"]) == 0
    assert len(losses) == len(expected) == EPOCHS * steps_per_epoch
    return losses, expected, ((state["params"], model), (state["ema"]["params"], average))


def assert_same_weights(pairs, tolerance):
    for ours, theirs in pairs:
        tensors = to_foreign(jax.device_get(ours), {}, "timm")
        for name, tensor in theirs.state_dict().items():
            got, wanted = tensors[name], tensor.numpy()
            if name.endswith("qkv.bias"):
                # A bias of the keys has no gradient but rounding, which Adam scales to full steps.
                got, wanted = (np.delete(a, np.s_[32:64]) for a in (got, wanted))
            np.testing.assert_allclose(got, wanted, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "reference", "distilled"),
    [
        pytest.param("none", True, False, marks=pytest.mark.full),
        pytest.param("none", False, True, marks=pytest.mark.full),
        pytest.param("none", True, True, marks=pytest.mark.full),
        ("soft", True, True),
        pytest.param("hard", False, True, marks=pytest.mark.full),
    ],
)
def test_fifty_steps_equal_the_loop_in_pytorch(kind, reference, distilled):
    losses, expected, pairs = run_both(recipe(kind, reference), distilled, steps_per_epoch=10)
    # The curves are no constants.
    assert np.ptp(expected) > 0.1
    # Seen: 7e-7; rounding grows through the steps, in Adam's division above all.
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # Fifty steps of up to 2e-3; a thousandth of what they sum to.
    assert_same_weights(pairs, 1e-4)


BOTH = (True, False)
BINARY = "binary_cross_entropy"
# (distillation.kind, reference, two heads, config.training)
LOSSES = [
    ("none", False, True, {}),
    ("none", True, True, {}),
    ("hard", False, True, {}),
    ("hard", True, False, {}),
    ("none", True, True, {"eval_mode": True}),
    ("none", True, True, {"parts": "heads", "eval_mode": True}),
    ("none", True, False, {"cosub": True, "loss": BINARY}),
]
# What differs from those and the fifty steps in nothing that decides which heads are trained.
FURTHER_LOSSES = [
    *(("none", reference, False, {}) for reference in BOTH),
    ("hard", True, True, {}),
    ("hard", False, False, {}),
    *(("soft", *modes, {}) for modes in ((False, True), (True, False), (False, False))),
    *(("none", *m, {"eval_mode": True}) for m in ((True, False), (False, True), (False, False))),
    *(("none", reference, True, {"parts": "heads"}) for reference in BOTH),
    ("none", True, True, {"parts": "attention"}),
    ("hard", True, True, {"parts": "heads"}),
    ("none", False, False, {"cosub": True, "loss": BINARY}),
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("kind", "reference", "distilled", "training"),
    [*LOSSES, *(pytest.param(*loss, marks=pytest.mark.full) for loss in FURTHER_LOSSES)],
)
def test_every_loss_trains_the_heads_that_it_trains_in_pytorch(
    kind, reference, distilled, training
):
    config = recipe(kind, reference, **training)
    losses, expected, pairs = run_both(config, distilled, 2, UNMIXED)
    # Seen: 5e-7 and 5e-6, a four-hundredth of a step.
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert_same_weights(pairs, 1e-5)
