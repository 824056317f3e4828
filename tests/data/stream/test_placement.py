"""Copies of an image in a batch: never in one mixing group, never with their like."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import draw_mixing
from deit_jax.data.stream.repeated_augmentation import apart, locate
from deit_jax.schema.images import UNMIXED


def batches(batch, images, repeats, steps, seed=0):
    for step in range(steps):
        positions = np.arange(step * batch, (step + 1) * batch)
        yield locate(positions, images, repeats, seed)


def grouped(index, group):
    order = apart(index, group)
    assert sorted(order.tolist()) == list(range(len(index)))
    return index[order].reshape(-1, group)


def most_copies(groups):
    return max(Counter(row).most_common(1)[0][1] for row in groups.tolist())


# Batch, group, repeats: the recipe, one device's worth, groups that no power of two divides.
@pytest.mark.parametrize(
    ("batch", "group", "repeats"),
    [(1024, 64, 3), (512, 32, 3), (192, 64, 3), (96, 2, 3), (60, 10, 5), (64, 8, 8), (30, 6, 2)],
)
def test_no_group_holds_an_image_twice(batch, group, repeats):
    # Not a multiple of the batch, so that copies are parted by the ends of batches everywhere.
    for _, index, _ in batches(batch, 1_000_003, repeats, 20):
        groups = grouped(index, group)
        assert [len(set(row)) for row in groups.tolist()] == [group] * len(groups)
        assert not (groups == groups[:, ::-1]).any()


@pytest.mark.parametrize(
    ("batch", "group", "repeats", "images"),
    # Fewer groups than copies; small data sets, of which a batch holds several epochs.
    [(128, 64, 3, 999), (64, 64, 3, 999), (96, 96, 3, 50), (128, 32, 2, 77), (60, 10, 3, 31)],
)
def test_where_it_is_impossible_copies_are_spread_evenly_and_not_mixed_together(
    batch, group, repeats, images
):
    for _, index, _ in batches(batch, images, repeats, 60):
        groups = grouped(index, group)
        # The pigeonhole principle: no order of the same images does better.
        most = max(Counter(index.tolist()).values())
        assert most_copies(groups) == -(-most // len(groups))
        assert not (groups == groups[:, ::-1]).any()


def test_an_image_of_more_than_half_a_group_is_mixed_with_itself_as_little_as_possible():
    groups = grouped(np.array([7, 7, 7, 7, 7, 1]), 6)
    assert (groups == groups[:, ::-1]).sum() == 4


def test_copies_have_different_partners():
    for _, index, _ in batches(1024, 100_000, 3, 10):
        groups = grouped(index, 64)
        partners = {}
        for image, other in zip(groups.ravel(), groups[:, ::-1].ravel(), strict=True):
            partners.setdefault(image, []).append(other)
        assert all(len(set(others)) == len(others) for others in partners.values())


@pytest.mark.slow
def test_every_pair_of_images_is_equally_likely():
    """Chi-square of the ordered partners at each place, over 4,000 orders of 8 images.

    A batch of 8 holds 4 of the 8 images twice; whatever the place, each of the 56 pairs of
    different images comes with the same probability.
    """
    # Takes a second to import, which other test processes are spared.
    from scipy import stats

    counts = np.zeros((4, 8, 8))
    for seed in range(4000):
        _, index, _ = next(batches(8, 8, 2, 1, seed))
        groups = grouped(index, 4)
        own, other = groups[:, :2].ravel(), groups[:, :1:-1].ravel()
        np.add.at(counts, (range(4), own, other), 1)
    assert not counts[:, range(8), range(8)].any()
    for place in counts:
        pairs = place[~np.eye(8, dtype=bool)]
        # A pair that comes 1.5 times as often moves the statistic by about its 55 expected.
        assert stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.slow
def test_copies_draw_weight_coin_and_box_of_their_own():
    """In the mode with one draw for a group, where copies side by side shared it."""
    epoch, index, copy = next(batches(192, 100_000, 3, 1))
    options = replace(UNMIXED, mixup_alpha=0.8, cutmix_alpha=1.0, group=64)

    def draws(order):
        places = (values[order].astype(np.int32) for values in (epoch, index, copy))
        drawn = draw_mixing(purpose(image_keys(0, *places), "mix"), options, 224, 224)
        return np.stack([np.asarray(values, np.float32) for values in drawn], axis=1)

    def shared(order):
        """Share of pairs of copies with the same draw."""
        rows, images = draws(order), index[order]
        same = [np.ptp(rows[images == image], axis=0).max() == 0 for image in set(images)]
        return np.mean(same)

    assert shared(apart(index, 64)) == 0
    assert shared(np.arange(192)) > 0.9


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_hold_enough_groups_share_no_image(processes):
    """Each decodes the images of its rows once: as many as if copies stood side by side."""
    for _, index, _ in batches(1024, 100_000, 3, 10):
        rows = grouped(index, 64).reshape(processes, -1)
        here = sum(len(set(part.tolist())) for part in rows)
        plain = sum(len(set(part.tolist())) for part in index.reshape(processes, -1))
        assert here == plain


def test_copies_of_two_epochs_in_one_batch_are_parted_too():
    # The last images of one epoch are the first of the next.
    index = np.repeat([0, 1, 2, 3, 0, 1, 2, 3], 2)
    groups = grouped(index, 4)
    assert [sorted(row) for row in groups.tolist()] == [[0, 1, 2, 3]] * 4


def test_the_order_never_changes():
    """Frozen: a run must be resumable by a later version."""
    index = np.repeat([10, 20, 30, 40], 3)
    assert apart(index, 4).tolist() == [0, 3, 9, 6, 1, 4, 7, 10, 2, 5, 11, 8]
