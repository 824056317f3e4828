"""What is kept of a teacher's answers: PyTorch's loss of them is the loss of the answers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deit_jax.training.distillation.labels import Kept

CLASSES = 1000
TEACHER = np.random.default_rng(0).normal(0, 3, (64, CLASSES)).astype(np.float32)
STUDENT = np.random.default_rng(1).normal(0, 1, (64, CLASSES)).astype(np.float32)


def divergence(teacher, temperature):
    student, teacher = (torch.tensor(np.asarray(a)) / temperature for a in (STUDENT, teacher))
    logs = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return float(F.kl_div(*logs, log_target=True, reduction="batchmean")) * temperature**2


def answer(kept):
    labels = kept.encode(jnp.asarray(TEACHER))
    shapes = {name: (array.shape, str(array.dtype)) for name, array in labels.items()}
    assert shapes == kept.shapes(len(TEACHER))
    return np.asarray(kept.decode(labels))


def test_the_class_is_kept_in_two_bytes():
    np.testing.assert_array_equal(answer(Kept("hard", CLASSES)).argmax(1), TEACHER.argmax(1))
    last = jnp.zeros((2, 1 << 16)).at[1, -1].set(1.0)
    kept = Kept("hard", 1 << 16)
    assert kept.decode(kept.encode(last)).argmax(1).tolist() == [0, (1 << 16) - 1]


def test_all_logits_are_kept_to_the_bit():
    np.testing.assert_array_equal(answer(Kept("soft", CLASSES)), TEACHER)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_largest_logits_keep_their_probability_and_the_others_their_sum(temperature):
    kept = Kept("soft", CLASSES, 10, temperature)
    softmax = torch.softmax(torch.tensor(answer(kept)) / temperature, dim=1).numpy()
    wanted = torch.softmax(torch.tensor(TEACHER) / temperature, dim=1).numpy()
    rows, largest = np.arange(64)[:, None], np.argsort(-TEACHER, axis=1)[:, :10]
    # float16 has 11 bits, of a logit that lies up to 8 below the largest.
    np.testing.assert_allclose(softmax[rows, largest], wanted[rows, largest], rtol=8 * 2**-11)
    softmax[rows, largest] = wanted[rows, largest] = 0
    np.testing.assert_allclose(softmax.sum(1), wanted.sum(1), rtol=2**-11)
    # The others are one another's equals.
    assert all(len(np.unique(row)) == 2 for row in softmax)


def test_the_more_is_kept_the_nearer_the_loss():
    for temperature in (1.0, 3.0):
        exact = divergence(TEACHER, temperature)
        errors = [
            abs(
                divergence(answer(Kept("soft", CLASSES, top, temperature)), temperature) / exact - 1
            )
            for top in (10, 100, 999)
        ]
        assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3, errors
