"""The statistics of the comparison over seeds, and that both sides are given the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import torch_training
from benchmarks.parity_page import MARGINS, Measured, paired, quantities, verdict, welch, write_page
from benchmarks.parity_page import Interval as Bounds
from benchmarks.statistical_parity import overrides, recipe
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.sweeps.plan import read_config
from deit_jax.training.learning_rate import learning_rate
from deit_jax.weights.transformer_layout import to_foreign


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(90, 0.5, 5), rng.normal(91, 2.0, 8)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    interval = welch(list(a), list(b))
    np.testing.assert_allclose(interval, (a.mean() - b.mean(), *expected), rtol=1e-12)
    # Two of the same size and spread have 2 (n - 1) degrees of freedom.
    c = welch([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert c.high == pytest.approx(stats.t.ppf(0.975, 4) * (2 / 3) ** 0.5)


def test_pairs_are_scipys():
    rng = np.random.default_rng(0)
    a = rng.normal(90, 0.5, 6)
    b = a + rng.normal(0.1, 0.2, 6)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(paired(list(a), list(b)), ((a - b).mean(), *expected), rtol=1e-10)
    # Where scipy says nan: nothing differs.
    assert paired([1.0, 2.0], [1.0, 2.0]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((-0.5, 0.6), "equivalent"),
        ((0.1, 0.6), "equivalent, though not equal"),
        ((-0.5, 1.6), "no difference shown, margin not resolved"),
        ((0.5, 1.6), "**different**"),
        ((1.6, 1.8), "**different**"),
    ],
)
def test_verdicts(bounds, words):
    assert verdict(Bounds(sum(bounds) / 2, *bounds), 1.5) == words


def test_flags_and_configuration_are_the_same(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    for kind in ("none", "soft", "hard"):
        flags = [f"--config.{k}={v}" for k, v in overrides(kind, 3, teacher).items()]
        assert read_config(f"configs/digits.py:{kind}", flags).to_dict() == (
            recipe(kind, 3, teacher).to_dict()
        )


def test_the_schedule_is_train_pys():
    config = recipe("none", 0, None)
    for step in (0, 3, 31, 32, 400, 745):
        epoch = step / 6.21875
        expected = float(learning_rate(config, step, 6.21875))
        assert torch_training.rate_at(epoch, config) == pytest.approx(expected, rel=1e-5)


def test_the_teacher_gives_the_same_answers_on_both_sides():
    function, *shapes = abstract(model_builder("regnety_micro"))
    rng = np.random.default_rng(0)

    def draw(shape):
        # Near one: positive variances, and signals that neither vanish nor explode.
        return (1 + 0.3 * rng.normal(size=shape.shape)).astype(np.float32) / shape.shape[0] ** 0.5

    params, batch_stats = (jax.tree.map(draw, tree) for tree in shapes)
    state = to_foreign(params, batch_stats, "timm", "regnety_micro")
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = torch_training.TorchRegNet(tensors, (1, 2, 2))(
            torch.from_numpy(images).permute(0, 3, 1, 2)
        )
    (ours, _), _ = jax.jit(function.head_logits)(params, batch_stats, jnp.asarray(images))
    assert np.ptp(ours) > 0.01
    # Float32 rounding through some ten layers.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_student_begins_as_the_paper_says():
    torch.manual_seed(0)
    model = torch_training.build_student(recipe("hard", 0, None))
    assert sum(p.numel() for p in model.parameters()) == 155_796
    for name, values in model.named_parameters():
        if name.endswith("bias") and "patch" not in name:
            assert not values.any()
        elif values.ndim > 1 and values.numel() > 4000 and "patch" not in name:
            assert values.std().item() == pytest.approx(0.02, rel=0.05), name


def test_orders_hold_every_image_once():
    torch.manual_seed(0)
    batches = torch_training.shuffled(10, 4)
    stream = torch.cat([next(batches) for _ in range(5)])
    assert sorted(stream[:10].tolist()) == sorted(stream[10:].tolist()) == list(range(10))
    assert stream[:10].tolist() != stream[10:].tolist()


def test_a_short_run_and_the_page(tmp_path):
    config = recipe("none", 0, None)
    config.schedule.update(epochs=0.5, warmup_epochs=0.2)
    result = torch_training.train(config, None)
    assert result["steps"] == 3 and np.isfinite(result["train_loss"])
    assert set(result["evaluation"]) == {"raw", "ema"}
    other = json.loads(json.dumps(result))
    other["evaluation"]["raw"]["class"]["top1"] += 5.0
    other["train_loss"] += 0.01
    measured = Measured("none", [other, other], [result, {**result, "train_loss": 2.0}])
    facts = {"config": config.to_dict(), "versions": {"jax": "1", "flax": "2"}}
    write_page(tmp_path / "docs" / "parity.md", [measured], facts, "--seeds 2")
    text = (tmp_path / "docs" / "parity.md").read_text()
    assert "python -m benchmarks.statistical_parity --seeds 2" in text
    assert f"{MARGINS['top-1']}\npercentage points" in text
    rows = [line for line in text.splitlines() if line.startswith("| none |")]
    assert len(rows) == len(quantities("none")) and "**different**" in rows[0]
