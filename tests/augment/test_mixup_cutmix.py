"""Mixup and CutMix against timm, given the same draws, and the draws against its distribution."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm.data.mixup as timm_mixup
import torch
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import (
    _side_between,
    _side_of_area,
    apply_mixing,
    beta_quantile,
    draw_mixing,
    mix,
    one_hot_targets,
    partners,
)
from deit_jax.schema.images import UNMIXED

ALARM = 1e-3
BOXES = ("timm", "reference")
RECIPE = replace(UNMIXED, mixup_alpha=0.8, cutmix_alpha=1.0)


def keys_of(count, start=0):
    index = jnp.arange(start, start + count)
    return purpose(image_keys(0, 0 * index, index, 0 * index), "mix")


def draws(count, options, height=224, width=160):
    drawn = jax.jit(lambda keys: draw_mixing(keys, options, height, width))(keys_of(count))
    return jax.tree.map(np.asarray, drawn)


def batch_of(count, classes=7, height=20, width=14, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, height, width, 3)).astype(np.float32)
    labels = generator.integers(0, classes, count)
    return images, labels, one_hot_targets(jnp.asarray(labels), classes, 0.1)


class TimmWithDraws(timm_mixup.Mixup):
    """timm's Mixup with its random numbers replaced."""

    def __init__(self, choices, mode, classes):
        super().__init__(0.8, 1.0, mode=mode, num_classes=classes, label_smoothing=0.1)
        self.choices = choices

    def _params_per_batch(self):
        return float(self.choices.pixel_weight[0]), bool(self.choices.cutmix[0])

    def _params_per_elem(self, batch_size):
        # A CutMix draw of weight 1 would be skipped; its box is given below, so any other will do.
        weight = np.where(self.choices.cutmix, 0.5, self.choices.pixel_weight)
        return weight[:batch_size].astype(np.float32), self.choices.cutmix[:batch_size]


def timm_mixed(monkeypatch, images, labels, classes, choices, mode):
    drawn = iter(np.flatnonzero(choices.cutmix))

    def box(*_, **__):
        at = next(drawn)
        box = (choices.top[at], choices.bottom[at], choices.left[at], choices.right[at])
        return box, choices.target_weight[at]

    monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", box)
    monkeypatch.setattr(timm_mixup.torch.Tensor, "cuda", lambda tensor: tensor, raising=False)
    tensor = torch.tensor(images.transpose(0, 3, 1, 2))
    mixed, target = TimmWithDraws(choices, mode, classes)(tensor, torch.tensor(labels))
    return mixed.numpy().transpose(0, 2, 3, 1), target.numpy()


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("minmax", [(), (0.2, 0.8)])
def test_equal_to_timm_given_the_same_draws(monkeypatch, mode, minmax):
    options = replace(RECIPE, mode=mode, minmax=minmax, probability=0.9)
    apply = jax.jit(apply_mixing)
    seen = set()
    for repeat in range(8 if mode == "batch" else 2):
        images, labels, targets = batch_of(8, seed=repeat)
        drawn = draw_mixing(keys_of(8, start=100 * repeat), options, 20, 14)
        choices = jax.tree.map(np.asarray, drawn)
        found, found_targets = apply(images, targets, drawn)
        expected, expected_targets = timm_mixed(monkeypatch, images, labels, 7, choices, mode)
        # One product and one sum of float32 on either side.
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(found_targets, expected_targets, atol=1e-6)
        np.testing.assert_allclose(np.sum(found_targets, axis=1), 1, atol=1e-6)
        seen |= set(choices.cutmix.tolist())
    assert seen == {True, False}


def test_smoothed_targets():
    rows = np.asarray(one_hot_targets(jnp.array([2, 0]), 5, 0.1))
    np.testing.assert_allclose(rows[0], [0.02, 0.02, 0.92, 0.02, 0.02], atol=1e-7)
    np.testing.assert_array_equal(one_hot_targets(jnp.array([2, 0]), 5), np.eye(5)[[2, 0]])
    expected = timm_mixup.mixup_target(torch.tensor([2, 1]), 5, 0.7, 0.1)
    kept = 0.7 * one_hot_targets(jnp.array([2, 1]), 5, 0.1)
    other = 0.3 * one_hot_targets(jnp.array([1, 2]), 5, 0.1)
    np.testing.assert_allclose(kept + other, expected, atol=1e-7)


@pytest.mark.parametrize("box", BOXES)
def test_cutmix_weight_is_the_share_that_is_left(box):
    choices = draws(4000, replace(UNMIXED, cutmix_alpha=1.0, mode="elem", box=box))
    area = (choices.bottom - choices.top) * (choices.right - choices.left)
    np.testing.assert_allclose(choices.target_weight, 1 - area / (224 * 160), atol=1e-6)
    assert choices.cutmix.all()


def test_box_sizes_and_places_are_distributed_as_in_timm():
    """Two-sample Kolmogorov-Smirnov, 8,000 draws a side: limit 0.031, shifts of 0.05 are noticed
    with a probability above 0.99."""
    count = 8000
    choices = draws(count, replace(UNMIXED, cutmix_alpha=1.0, mode="elem"))
    np.random.seed(0)
    reference = [
        timm_mixup.rand_bbox((3, 224, 160), weight) for weight in np.random.beta(1, 1, count)
    ]
    found = np.stack([choices.top, choices.bottom, choices.left, choices.right], axis=1)
    check_boxes(found, np.array(reference))
    choices = draws(count, replace(UNMIXED, minmax=(0.2, 0.7), mode="elem"))
    found = np.stack([choices.top, choices.bottom, choices.left, choices.right], axis=1)
    check_boxes(found, np.stack(timm_mixup.rand_bbox_minmax((3, 224, 160), (0.2, 0.7), count), 1))


@pytest.mark.parametrize("side", [16, 25, 224])
def test_every_box_has_the_borders_of_its_version_of_timm(side):
    """All centres and lengths; timm 0.3.2 has (cut // 2) where 1.0.31 has ((cut + 1) // 2)."""
    centre, cut = (grid.ravel() for grid in np.mgrid[0:side, 0:side])
    # Draws from the middle of what belongs to a whole number: no rounding matters.
    place, area = (centre + 0.5) / side, ((cut + 0.5) / side) ** 2
    for box, behind in (("reference", cut // 2), ("timm", (cut + 1) // 2)):
        options = replace(UNMIXED, cutmix_alpha=1.0, box=box)
        low, high = _side_of_area(options, jnp.asarray(area), side, jnp.asarray(place))
        np.testing.assert_array_equal(low, np.clip(centre - cut // 2, 0, side))
        np.testing.assert_array_equal(high, np.clip(centre + behind, 0, side))


@pytest.mark.parametrize(("box", "places"), [("reference", 0), ("timm", 1)])
def test_boxes_between_two_shares_start_where_their_version_of_timm_lets_them(box, places):
    """NumPy's randint(0, side - cut) of 0.3.2 never gives the last start, + 1 of 1.0.31 does."""
    options = replace(UNMIXED, minmax=(0.2, 0.8), box=box)
    size, place = (grid.ravel() for grid in np.mgrid[0:1:100j, 0:1:1000j] * (1 - 1e-6))
    low, high = map(np.asarray, _side_between(options, 20, jnp.asarray(size), jnp.asarray(place)))
    # Lengths 4 to 15, and of each all starts, as often as each other.
    for cut in range(4, 16):
        starts, counts = np.unique(low[high - low == cut], return_counts=True)
        assert starts.tolist() == list(range(20 - cut + places))
        assert counts.min() > 0.98 * counts.max()
    assert set(np.unique(high - low)) == set(range(4, 16))


def test_the_default_box_is_nearer_to_the_area_of_the_cutmix_paper():
    """Its sides are those of the share 1 - lambda (arXiv 1905.04899, eq. 2), rounded down."""
    share = (np.arange(100_000) + 0.5) / 100_000
    middle = jnp.full(share.shape, 0.5)
    for side, errors in ((224, (0.0030, 0.0060)), (32, (0.021, 0.042))):
        for box, expected in zip(BOXES, errors, strict=True):
            options = replace(UNMIXED, cutmix_alpha=1.0, box=box)
            low, high = _side_of_area(options, jnp.asarray(share), side, middle)
            area = (np.asarray(high - low, float) / side) ** 2
            # The figures of docs/differences.md.
            assert np.abs(share - area).mean() == pytest.approx(expected, rel=0.02)


def check_boxes(found, reference):
    for box in (
        lambda b: b[:, 0],
        lambda b: b[:, 3],
        lambda b: b[:, 1] - b[:, 0],
        lambda b: b[:, 3] - b[:, 2],
        lambda b: (b[:, 1] - b[:, 0]) * (b[:, 3] - b[:, 2]),
    ):
        assert stats.ks_2samp(box(found), box(reference)).pvalue > ALARM


def test_weights_and_coins():
    """10,000 draws: a Kolmogorov distance of 0.03 and a share off by 0.03 are noticed with a
    probability above 0.99."""
    count = 10_000
    choices = draws(
        count,
        replace(RECIPE, probability=0.7, switch_probability=0.3, mode="elem"),
    )
    assert stats.binomtest(int(choices.cutmix.sum()), count, 0.7 * 0.3).pvalue > ALARM
    mixup = ~choices.cutmix & (choices.pixel_weight < 1)
    assert stats.binomtest(int(mixup.sum()), count, 0.7 * 0.7).pvalue > ALARM
    assert stats.kstest(choices.pixel_weight[mixup], stats.beta(0.8, 0.8).cdf).pvalue > ALARM
    np.testing.assert_array_equal(choices.pixel_weight[mixup], choices.target_weight[mixup])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 2.0, 5.0, 8.0, 32.0, 1e4])
def test_beta_draws_are_the_exact_quantiles(alpha):
    uniform = np.linspace(0.0005, 0.9995, 2001)
    found = np.asarray(beta_quantile(jnp.asarray(uniform, jnp.float32), alpha), float)
    expected = stats.beta(alpha, alpha).ppf(np.asarray(uniform, np.float32).astype(float))
    tolerance = 2e-6 if alpha <= 2 else 1e-4
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=2e-4)
    ends = beta_quantile(jnp.array([0.0, 1.0 - 2.0**-23]), alpha)
    assert (np.asarray(ends) >= 0).all() and (np.asarray(ends) <= 1).all()


def test_a_group_draws_from_its_first_image_and_stays_among_itself():
    images, _, targets = batch_of(12)
    keys = keys_of(12)
    options = replace(RECIPE, group=4)
    jitted = jax.jit(mix, static_argnums=3)
    found, found_targets = jitted(images, targets, keys, options)
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        alone, alone_targets = jitted(images[part], targets[part], keys[part], RECIPE)
        np.testing.assert_array_equal(found[part], alone)
        np.testing.assert_array_equal(found_targets[part], alone_targets)
    weights = np.asarray(draw_mixing(keys, options, 20, 14).target_weight).reshape(3, 4)
    assert (weights == weights[:, :1]).all() and len(np.unique(weights)) == 3


def test_partners_are_in_reverse_order():
    numbers = jnp.arange(8.0)[:, None]
    np.testing.assert_array_equal(partners(numbers, 0)[:, 0], np.arange(8)[::-1])
    np.testing.assert_array_equal(partners(numbers, 4)[:, 0], [3, 2, 1, 0, 7, 6, 5, 4])


def test_nothing_moves_between_devices_when_groups_stay_on_them(eight_devices):
    mesh = eight_devices
    split = NamedSharding(mesh, PartitionSpec("data"))
    images, _, targets = batch_of(32)
    options = replace(RECIPE, group=4)
    placed = jax.device_put((images, targets, keys_of(32)), split)
    compiled = (
        jax.jit(lambda i, t, k: mix(i, t, k, options), out_shardings=split).lower(*placed).compile()
    )
    text = compiled.as_text()
    for moving in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert moving not in text
    expected = mix(images, targets, keys_of(32), options)
    for one, other in zip(compiled(*placed), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_nothing_is_mixed_without_alphas():
    images, _, targets = batch_of(4)
    found, found_targets = mix(images, targets, keys_of(4), UNMIXED)
    assert found is images and found_targets is targets


def test_wrong_groups_are_named():
    images, _, targets = batch_of(6)
    with pytest.raises(ValueError, match="group of 4 images does not divide a batch of 6"):
        mix(images, targets, keys_of(6), replace(UNMIXED, mixup_alpha=1.0, group=4))
    with pytest.raises(ValueError, match="even group, not 3"):
        mix(images, targets, keys_of(6), replace(UNMIXED, mixup_alpha=1.0, group=3, mode="pair"))
