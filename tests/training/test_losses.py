"""The losses against PyTorch's own functions, as the reference composes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deit_jax.training.losses import distillation_loss

# One float32 rounding of a sum over 50 classes and 16 images; both sides sum in another order.
RELATIVE = 2e-6


def logits(seed, scale=3.0):
    return (scale * np.random.default_rng(seed).standard_normal((16, 50))).astype(np.float32)


def targets():
    labels = np.random.default_rng(9).integers(0, 50, 16)
    return (0.9 * np.eye(50)[labels] + 0.1 / 50).astype(np.float32)


def torch_distillation(kind, student, teacher, temperature, normaliser):
    """The reference's DistillationLoss, with the divisor spelt out."""
    if kind == "hard":
        return F.cross_entropy(student, teacher.argmax(dim=1))
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="sum",
        log_target=True,
    )
    divisor = student.numel() if normaliser == "batch_times_classes" else len(student)
    return divergence * temperature**2 / divisor


@pytest.mark.parametrize("normaliser", ["batch", "batch_times_classes"])
@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_value_and_gradients_equal_pytorch(kind, token, normaliser):
    arrays = [logits(0), logits(1), logits(2)]
    own, second, teacher = (torch.tensor(a, requires_grad=True) for a in arrays)
    label = torch.sum(-torch.tensor(targets()) * F.log_softmax(own, dim=-1), dim=-1).mean()
    taught = torch_distillation(kind, second if token else own, teacher.detach(), 3.0, normaliser)
    expected = 0.3 * label + 0.7 * taught
    expected.backward()

    def loss(own, second):
        return distillation_loss(
            own,
            second if token else None,
            jnp.asarray(arrays[2]),
            targets(),
            kind=kind,
            weight=0.7,
            temperature=3.0,
            normaliser=normaliser,
        ).total

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(*map(jnp.asarray, arrays[:2]))
    np.testing.assert_allclose(value, expected.item(), rtol=RELATIVE)
    # Gradients of softmax differences cancel; compare against the largest entry.
    np.testing.assert_allclose(grads[0], own.grad, atol=RELATIVE * own.grad.abs().max().item())
    if token:
        np.testing.assert_allclose(
            grads[1], second.grad, atol=RELATIVE * second.grad.abs().max().item()
        )
    else:
        assert not np.any(grads[1])


def test_without_teacher_is_soft_target_cross_entropy():
    own = torch.tensor(logits(0))
    expected = F.cross_entropy(own, torch.tensor(targets()))
    result = distillation_loss(jnp.asarray(logits(0)), None, None, targets())
    np.testing.assert_allclose(result.total, expected, rtol=RELATIVE)
    assert float(result.distillation) == 0.0


def test_without_teacher_both_heads_learn_the_labels():
    expected = sum(
        F.cross_entropy(torch.tensor(logits(i)), torch.tensor(targets())).item() for i in (0, 1)
    )
    result = distillation_loss(jnp.asarray(logits(0)), jnp.asarray(logits(1)), None, targets())
    np.testing.assert_allclose(result.total, expected / 2, rtol=RELATIVE)


def test_the_reference_divides_by_classes_as_well():
    def soft(normaliser):
        return distillation_loss(
            jnp.asarray(logits(0)),
            None,
            jnp.asarray(logits(1)),
            targets(),
            kind="soft",
            normaliser=normaliser,
        ).distillation

    np.testing.assert_allclose(soft("batch"), 50 * soft("batch_times_classes"), rtol=RELATIVE)


def test_refuses_a_missing_teacher_and_other_classes():
    with pytest.raises(ValueError, match="needs the teacher's logits"):
        distillation_loss(jnp.ones((2, 3)), None, None, jnp.ones((2, 3)), kind="hard")
    with pytest.raises(ValueError, match="same classes"):
        distillation_loss(jnp.ones((2, 3)), None, jnp.ones((2, 4)), jnp.ones((2, 3)), kind="soft")
