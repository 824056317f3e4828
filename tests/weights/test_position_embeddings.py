"""Position embeddings against PyTorch's own interpolation, the call of the reference and timm."""

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed

from deit_jax.weights.position_embeddings import resize_positions

# Ours is computed in float64, theirs in float32 from values about 0.02: rounding is below 1e-8.
TOLERANCE = 1e-7
GRIDS = [
    ((14, 14), (24, 24)),  # 224 to 384 pixels
    ((24, 24), (14, 14)),
    ((14, 14), (10, 10)),  # to 160
    ((14, 14), (12, 20)),
    ((7, 5), (3, 11)),
    ((2, 2), (9, 9)),
    ((9, 4), (1, 1)),
    ((1, 1), (4, 3)),
]


def random_positions(grid, prefix, width=6, seed=0):
    shape = (1, prefix + grid[0] * grid[1], width)
    return (0.02 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def interpolated(positions, prefix, old, new, antialias):
    """What the reference's fine-tuning does, written anew."""
    patches = torch.from_numpy(positions[:, prefix:]).reshape(1, *old, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(
        patches, size=new, mode="bicubic", align_corners=False, antialias=antialias
    )
    patches = patches.permute(0, 2, 3, 1).flatten(1, 2)
    return np.concatenate([positions[:, :prefix], patches.numpy()], axis=1)


@pytest.mark.parametrize("rule", ["reference", "timm"])
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_equals_pytorch(old, new, rule):
    positions = random_positions(old, 2)
    ours = resize_positions(positions, old, new, rule=rule)
    theirs = interpolated(positions, 2, old, new, antialias=rule == "timm")
    assert ours.dtype == np.float32 and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(ours[:, :2], positions[:, :2])


def test_the_rule_timm_equals_timm():
    positions = random_positions((14, 14), 1)
    theirs = resample_abs_pos_embed(torch.from_numpy(positions), (24, 18), num_prefix_tokens=1)
    ours = resize_positions(positions, (14, 14), (24, 18), rule="timm")
    np.testing.assert_allclose(ours, theirs.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("rule", ["reference", "timm"])
def test_the_same_grid_changes_nothing(rule):
    positions = random_positions((5, 3), 1)
    np.testing.assert_array_equal(resize_positions(positions, (5, 3), (5, 3), rule=rule), positions)


def test_the_two_rules_differ_by_more_than_rounding():
    """Else the tests above could not tell them apart."""
    positions = random_positions((14, 14), 1)
    rules = [resize_positions(positions, (14, 14), (24, 24), rule=r) for r in ("reference", "timm")]
    assert np.abs(rules[0] - rules[1]).max() > 1e-3


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(ValueError, match="choose reference or timm"):
        resize_positions(random_positions((2, 2), 1), (2, 2), (3, 3), rule="nearest")
    with pytest.raises(ValueError, match="too few for 3x3"):
        resize_positions(random_positions((2, 2), 1), (3, 3), (2, 2))
