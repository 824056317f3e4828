"""Submodels that teach each other: the loss beside PyTorch's, and the one train step with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.pipeline import normalise
from deit_jax.config.defaults import default_config
from deit_jax.config.validate import validate
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.cosub import cosub_loss
from tests.training.small_runs import batches, make, one_headed, small_config, split_over

# One float32 rounding of a sum over 20 classes and 12 images; both sides sum in another order.
RELATIVE = 2e-6

pytestmark = pytest.mark.usefixtures("quick_compilation")


def reference_loss(first, second, targets, kind):
    """As the reference's engine composes it: four terms of weight 1/4, targets detached."""
    if kind == "cross_entropy":
        soft = lambda x: x.detach().softmax(-1)  # noqa: E731
        term = F.cross_entropy
    else:
        soft = lambda x: x.detach().sigmoid()  # noqa: E731
        term = F.binary_cross_entropy_with_logits
    labels = targets.gt(0).float() if kind.startswith("multi_hot") else targets
    terms = [term(first, labels), term(second, labels)]
    terms += [term(first, soft(second)), term(second, soft(first))]
    return sum(terms) / 4


@pytest.mark.parametrize(
    "kind", ["cross_entropy", "binary_cross_entropy", "multi_hot_binary_cross_entropy"]
)
def test_value_and_gradients_equal_pytorch(kind):
    rng = np.random.default_rng(0)
    arrays = [3 * rng.standard_normal((12, 20)).astype(np.float32) for _ in range(2)]
    labels = np.eye(20, dtype=np.float32)[rng.integers(0, 20, 12)]
    targets = 0.7 * labels + 0.3 * labels[::-1]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = reference_loss(*theirs, torch.tensor(targets), kind)
    expected.backward()
    options = default_config().training
    options.update(loss=kind, label_smoothing=0.0)

    def total(first, second):
        return cosub_loss(first, second, jnp.asarray(targets), options).total

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(value, expected.item(), rtol=RELATIVE)
    for ours, other in zip(grads, theirs, strict=True):
        # Differences of probabilities cancel: against the largest entry.
        np.testing.assert_allclose(ours, other.grad, atol=RELATIVE * other.grad.abs().max().item())


def run_step(batch, micro_batches=1, devices=1):
    """A step of a small transformer with one head; nothing else is random."""
    config = small_config(
        training__cosub=True,
        training__micro_batches=micro_batches,
        model__drop_path_rate=0.5,
        optimizer__name="sgd",
    )
    function, state, step = make(
        config,
        one_headed,
        mixing=UNMIXED,
        augment=NORMALISED,
        sharding=split_over(devices),
    )
    return config, function, state, step(state, {}, batch)


def test_the_step_runs_two_submodels_on_the_same_images():
    batch = next(batches(1))
    config, function, state, after = run_step(batch)
    keys = image_keys(config.seed, batch["epoch"], batch["index"], batch["copy"])
    keys = purpose(keys, "model")
    images = normalise(batch["image"], NORMALISED.mean, NORMALISED.std)

    @jax.jit
    def answer(params, keys):
        return function.head_logits(params, {}, images, keys=keys)[0][0]

    first, second = (
        torch.tensor(np.asarray(answer(state["params"], purpose(keys, name))))
        for name in ("submodel 1", "submodel 2")
    )
    assert (first - second).abs().max() > 1e-3
    labels = np.eye(10)[batch["label"]] * (1 - config.training.label_smoothing)
    targets = torch.tensor(labels + config.training.label_smoothing / 10, dtype=torch.float32)
    expected = reference_loss(first, second, targets, "cross_entropy").item()
    # Products of 64 instead of 32 images.
    assert float(after["sums"]["loss"]) == pytest.approx(expected, rel=1e-5)
    # Micro-batches on several devices change nothing.
    sliced = run_step(batch, micro_batches=2, devices=4)[3]
    one, other = (jax.tree.leaves((s["params"], s["sums"])) for s in (after, sliced))
    for a, b in zip(one, other, strict=True):
        # Sums over the batch in another order, as in test_step.py.
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("distillation.kind", "hard", "instead of a teacher"),
        ("model.name", "deit_small_distilled_patch16_224", "without distillation token"),
        ("model.drop_path_rate", 0.0, "set model.drop_path_rate"),
    ],
)
def test_combinations_that_mean_nothing_are_refused(tmp_path, key, value, words):
    config = default_config()
    config.data.directory, config.teacher.weights = "somewhere", str(tmp_path)
    config.training.cosub = True
    assert validate(config) == []
    config.update_from_flattened_dict({key: value})
    (problem,) = validate(config)
    assert words in problem
