"""The training stream against its definition, by brute force."""

from collections import Counter

import numpy as np
import pytest

from deit_jax.data.draws import balanced_order, crop_draws
from deit_jax.data.stream.repeated_augmentation import epoch_order, locate


@pytest.mark.parametrize("num_images", [1, 2, 7, 100])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_epoch_shows_what_is_documented(num_images, repeats):
    epochs = 5
    positions = np.arange(epochs * num_images)
    epoch, index, copy = locate(positions, num_images, repeats, seed=11)
    for e in range(epochs):
        here = slice(e * num_images, (e + 1) * num_images)
        assert (epoch[here] == e).all()
        order = epoch_order(num_images, 11, e)
        assert sorted(order.tolist()) == list(range(num_images))
        shown = [(int(order[j // repeats]), j % repeats) for j in range(num_images)]
        assert list(zip(index[here].tolist(), copy[here].tolist(), strict=True)) == shown
        # ceil(N / R) images, all R times but for the last.
        counts = Counter(index[here].tolist())
        assert len(counts) == -(-num_images // repeats)
        assert sorted(counts.values(), reverse=True)[:-1] == [repeats] * (len(counts) - 1)


@pytest.mark.parametrize(("num_images", "batch"), [(1, 8), (7, 16), (100, 64), (100, 32)])
def test_a_position_does_not_depend_on_how_the_stream_is_cut(num_images, batch):
    whole = locate(np.arange(10 * batch), num_images, 3, seed=0)
    for processes in (1, 2, 8):
        rows = batch // processes
        parts = [
            locate(
                np.arange(step * batch + i * rows, step * batch + (i + 1) * rows), num_images, 3, 0
            )
            for step in range(10)
            for i in range(processes)
        ]
        for everything, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(everything, np.concatenate(pieces))


def test_orders_differ_between_epochs_and_seeds_and_never_change():
    orders = [epoch_order(1000, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({order.tobytes() for order in orders}) == 9
    # Frozen: a run must be resumable by a later version.
    assert epoch_order(10, 0, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert crop_draws(1, 2, 3, 4, 2) == [0.05905098176164081, 0.7520530005295931]


def test_far_positions_are_as_cheap_as_near_ones():
    position = np.array([10**12, 10**12 + 1])
    epoch, index, copy = locate(position, 1000, 1, seed=0)
    assert epoch.tolist() == [10**9, 10**9]
    assert index.tolist() == epoch_order(1000, 0, 10**9)[:2].tolist()
    assert copy.tolist() == [0, 0]


def test_orders_are_uniform():
    # 6,000 orders of 4 images: chi-square over the 24 permutations, 23 degrees of freedom.
    # 49.7 is its 0.999 quantile; an order with one permutation 1.5 times as likely as the others
    # gives about 23 + 6000 * 0.25 / 24 = 85.
    counts = Counter(epoch_order(4, 5, epoch).tobytes() for epoch in range(6000))
    assert len(counts) == 24
    assert sum((count - 250) ** 2 / 250 for count in counts.values()) < 49.7


def test_crop_draws_are_uniform_and_distinct():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = [crop_draws(seed, *key, 24) for seed in (0, 1) for key in keys]
    assert len({number for row in draws for number in row}) == 8 * 24
    many = np.array([crop_draws(0, 0, index, 0, 20) for index in range(1000)]).ravel()
    # Kolmogorov-Smirnov distance of 20,000 numbers: 1.95 / sqrt(n) is the 0.001 level.
    distance = np.abs(np.sort(many) - (np.arange(20000) + 0.5) / 20000).max()
    assert distance < 1.95 / np.sqrt(20000)


def test_balanced_order_keeps_every_prefix_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [3, 10, 10, 10]))
    order = balanced_order(labels, seed=1)
    assert sorted(order.tolist()) == list(range(33))
    for size in range(1, 34):
        counts = np.bincount(labels[order[:size]], minlength=6)[[0, 1, 2, 5]]
        if size <= 12:
            assert counts.max() - counts.min() <= 1
        else:  # Class 0 has given its three.
            assert counts[0] == 3
            assert counts[1:].max() - counts[1:].min() <= 1
    assert not np.array_equal(order, balanced_order(labels, seed=2))
