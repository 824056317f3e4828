"""The losses against PyTorch's own functions, as the reference composes them."""

from itertools import islice, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deit_jax.config.defaults import default_config
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.schema import RULES
from deit_jax.schema.networks import DistillationOptions
from deit_jax.training.distillation.losses import distillation_loss
from deit_jax.training.freezing import trainable
from deit_jax.training.label_losses import cross_entropy, label_criterion, multi_hot
from deit_jax.training.losses import training_loss

# One float32 rounding of a sum over 50 classes and 16 images; both sides sum in another order.
RELATIVE = 2e-6
KINDS = RULES["distillation.kind"].choices
FUSIONS = RULES["evaluation.fusion"].choices
NO_TEACHER = DistillationOptions()
PARTS = RULES["training.parts"].choices


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
            DistillationOptions(kind, 0.7, 3.0, normaliser),
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
    result = distillation_loss(jnp.asarray(logits(0)), None, None, targets(), NO_TEACHER)
    np.testing.assert_allclose(result.total, expected, rtol=RELATIVE)
    assert float(result.distillation) == 0.0


def test_without_teacher_both_heads_learn_the_labels():
    expected = sum(
        F.cross_entropy(torch.tensor(logits(i)), torch.tensor(targets())).item() for i in (0, 1)
    )
    result = distillation_loss(
        jnp.asarray(logits(0)), jnp.asarray(logits(1)), None, targets(), NO_TEACHER
    )
    np.testing.assert_allclose(result.total, expected / 2, rtol=RELATIVE)


def test_the_reference_divides_by_classes_as_well():
    def soft(normaliser):
        return distillation_loss(
            jnp.asarray(logits(0)),
            None,
            jnp.asarray(logits(1)),
            targets(),
            DistillationOptions("soft", normaliser=normaliser),
        ).distillation

    np.testing.assert_allclose(soft("batch"), 50 * soft("batch_times_classes"), rtol=RELATIVE)


@pytest.mark.usefixtures("unchecked_shapes")
def test_refuses_a_missing_teacher_and_other_classes():
    def refused(teacher, kind):
        rows = jnp.ones((2, 3))
        distillation_loss(rows, None, teacher, rows, DistillationOptions(kind))

    with pytest.raises(ValueError, match="needs the teacher's logits"):
        refused(None, "hard")
    with pytest.raises(ValueError, match="same classes"):
        refused(jnp.ones((2, 4)), "soft")


def criterion(name, smoothing=0.1):
    options = default_config().training
    options.update(loss=name, label_smoothing=smoothing)
    return label_criterion(options)


def test_binary_cross_entropy_keeps_smoothed_and_mixed_targets():
    mixed = 0.7 * targets() + 0.3 * targets()[::-1]
    ours = criterion("binary_cross_entropy")(jnp.asarray(logits(0)), mixed)
    expected = F.binary_cross_entropy_with_logits(torch.tensor(logits(0)), torch.tensor(mixed))
    np.testing.assert_allclose(ours, expected, rtol=RELATIVE)


def test_multi_hot_without_smoothing_is_the_loss_of_the_reference():
    hard = np.eye(50, dtype=np.float32)[np.arange(16)]
    mixed = 0.999 * hard + 0.001 * hard[::-1]
    ours = criterion("multi_hot_binary_cross_entropy", 0.0)(jnp.asarray(logits(0)), mixed)
    present = torch.tensor(mixed).gt(0.0).float()
    expected = F.binary_cross_entropy_with_logits(torch.tensor(logits(0)), present)
    np.testing.assert_allclose(ours, expected, rtol=RELATIVE)


def test_multi_hot_with_smoothing_does_not_call_every_class_present():
    mixed = 0.7 * targets() + 0.3 * targets()[::-1]
    # What the reference does with smoothed targets.
    assert np.all(mixed > 0)
    result = np.asarray(multi_hot(jnp.asarray(mixed), 0.1))
    labels = np.random.default_rng(9).integers(0, 50, 16)
    expected = np.full((16, 50), 0.002, np.float32)
    for row, (own, partner) in enumerate(zip(labels, labels[::-1], strict=True)):
        expected[row, [own, partner]] = 0.902
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_cross_entropy_is_the_plain_one():
    assert criterion("cross_entropy") is cross_entropy


# Every seventh of some 400 and 200 combinations: no number of choices is a multiple of seven.
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("distilled", [True, False])
def test_a_head_is_idle_exactly_where_the_loss_has_no_gradient_for_it(distilled, every):
    name = f"deit_micro{'_distilled' if distilled else ''}_patch4_16"
    _, params, _ = abstract(model_builder(name))
    arrays = [jnp.asarray(logits(seed)) for seed in range(3 if distilled else 2)]
    heads = dict(zip(("head", "head_dist"), arrays[1:], strict=False))
    seen = set()
    combinations = product(KINDS, ("both", "class"), (False, True), (False, True), FUSIONS, PARTS)
    for kind, alone, eval_mode, cosub, fusion, parts in islice(combinations, 0, None, every):
        config = default_config()
        config.distillation.update(kind=kind, without_teacher=alone)
        config.training.update(eval_mode=eval_mode, cosub=cosub, parts=parts)
        config.evaluation.fusion = fusion
        target = jnp.asarray(targets()[::2] if cosub else targets())

        def loss(heads, config=config, target=target):
            both = heads["head"], heads.get("head_dist")
            return training_loss(both, arrays[0], target, config)[0].total

        grads = jax.grad(loss)(heads)
        trained = trainable(params, config)
        for head, gradient in grads.items():
            assert set(jax.tree.leaves(trained[head])) == {bool(np.any(gradient))}, config
        seen.add(tuple(bool(np.any(gradient)) for gradient in grads.values()))
    assert seen == ({(True, True), (True, False)} if distilled else {(True,)})


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_term_of_no_weight_leaves_its_head_to_the_decay(weight):
    """PyTorch's gradient is zero and not absent, so AdamW still decays the head."""
    _, params, _ = abstract(model_builder("deit_micro_distilled_patch4_16"))
    config = default_config()
    config.distillation.update(kind="hard", weight=weight)
    assert all(jax.tree.leaves(trainable(params, config)))
    first, second = (torch.tensor(logits(i), requires_grad=True) for i in (0, 1))
    label = F.cross_entropy(first, torch.tensor(targets()))
    taught = F.cross_entropy(second, torch.tensor(logits(2)).argmax(dim=1))
    ((1 - weight) * label + weight * taught).backward()
    assert first.grad is not None and second.grad is not None
