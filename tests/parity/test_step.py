"""One optimiser step beside PyTorch's AdamW, and mistakes in it that must be found."""

from dataclasses import replace

import pytest

from deit_jax.parity.activations import layer_names
from deit_jax.parity.gradients import labels_for
from deit_jax.parity.our_model import noise_pixels
from deit_jax.parity.step import compare_steps, our_step, step_config, torch_step
from deit_jax.parity.torch_models import build_torch_side
from tests.parity.our_models import small

BATCH = 4


@pytest.fixture(scope="module")
def step_of():
    """Our step for a kind of distillation and student, computed once."""
    found = {}

    def compute(kind, distilled):
        if (kind, distilled) not in found:
            subject = small(distilled, depth=1)
            pixels = noise_pixels(BATCH, subject.module.image_size)
            labels = labels_for(subject, BATCH)
            config = step_config(subject, kind)
            found[kind, distilled] = (
                subject,
                pixels,
                labels,
                our_step(subject, config, pixels, labels),
            )
        return found[kind, distilled]

    return compute


def sections_of(step_of, kind, distilled, against, change=()):
    subject, pixels, labels, ours = step_of(kind, distilled)
    config = step_config(subject, kind)
    for key, value in dict(change).items():
        group, name = key.split(".")
        group_changed = replace(getattr(config, group), **{name: value})
        config = replace(config, **{group: group_changed})
    other = build_torch_side(subject, against)
    theirs = torch_step(subject, other, config, pixels, labels)
    # Losses within rounding, gradients as in test_parity; parameters within 1e-6 absolute.
    return compare_steps(ours, theirs, layer_names(subject), (1e-5, 1e-4))


@pytest.mark.parametrize(
    ("kind", "distilled"),
    [
        ("none", True),
        ("soft", True),
        ("hard", True),
        pytest.param("soft", False, marks=pytest.mark.full),
        pytest.param("none", False, marks=pytest.mark.full),
        ("hard", False),
    ],
)
def test_a_step_is_pytorchs(step_of, kind, distilled):
    for against in ("timm", "transformers", "official"):
        for section in sections_of(step_of, kind, distilled, against):
            assert section.first is None, (against, section.title, section.first)
    parameters = section
    # The learning rate is 5e-4, so a missing step would be 500 times the tolerance.
    assert parameters.tolerance == 1e-6
    subject, *_, ours = step_of(kind, distilled)
    moved = abs(ours.params["norm"]["scale"] - subject.params["norm"]["scale"])
    assert moved.max() == pytest.approx(5e-4, rel=0.01)
    # Hardly anything is left out because its gradient is zero.
    total = sum(p.numel() for p in build_torch_side(subject, "official").model.parameters())
    assert sum(row.size for row in parameters.rows) > 0.98 * total


@pytest.mark.parametrize(
    ("kind", "change", "title", "layer"),
    [
        ("soft", {"distillation.temperature": 1.0}, "losses", "loss"),
        ("soft", {"distillation.normaliser": "batch_times_classes"}, "losses", "loss"),
        ("hard", {"distillation.weight": 0.4}, "losses", "loss"),
        ("none", {"training.label_smoothing": 0.0}, "losses", "loss"),
        ("none", {"optimizer.weight_decay": 0.0}, "parameters", "patch_embed"),
        ("none", {"optimizer.eps": 1e-5}, "parameters", "patch_embed"),
    ],
)
def test_a_wrong_setting_is_found(step_of, kind, change, title, layer):
    sections = sections_of(step_of, kind, True, "official", change)
    first = next(section for section in sections if section.first)
    assert first.title.startswith(title) and first.first.layer == layer


def test_a_decay_that_spares_the_distillation_token_is_found(step_of, monkeypatch):
    from deit_jax.parity import step

    groups = step._groups

    def sparing(other, decay):
        decayed, spared = groups(other, decay)
        token = other.model.dist_token
        decayed["params"] = [p for p in decayed["params"] if p is not token]
        spared["params"].append(token)
        return [decayed, spared]

    monkeypatch.setattr(step, "_groups", sparing)
    # Decay moves a random token of size 0.02 to 0.06 by 5e-4 x 0.05 x 0.02 = 5e-7 and more.
    monkeypatch.setattr(step, "PARAMETERS", 5e-7)
    *_, parameters = sections_of(step_of, "none", True, "official")
    assert [r.layer for r in parameters.rows if not parameters.agrees(r)] == ["tokens"]
