"""The random choices against timm's distribution.

Seeds are fixed, so a test passes always or never. Each states what it would catch: the false-alarm
rate is 1 in 1,000, and the power is the probability of noticing the named deviation.
"""

import functools
import math
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from timm.data import auto_augment as timm_augment
from timm.data.random_erasing import RandomErasing

from deit_jax.augment.choices import draw_boxes, draw_choices, draw_jitter, draw_policy
from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.operations import LINE_KINDS, OPERATIONS, Kind
from deit_jax.augment.randaugment import INCREASING, SETS
from deit_jax.schema.images import NORMALISED

DRAWS = 30_000
ALARM = 1e-3
RECIPE = replace(NORMALISED, flip=0.5, policy="rand-m9-mstd0.5-inc1", erasing_probability=0.25)


def keys_of(count, epoch=0):
    index = jnp.arange(count)
    return purpose(image_keys(0, jnp.full(count, epoch), index, 0 * index), "augment")


@functools.cache
def policy_draws(spec, count=DRAWS, interpolation="bicubic"):
    options = replace(NORMALISED, policy=spec, interpolation=interpolation)
    drawn = jax.jit(lambda keys: draw_policy(keys, options, 160, 224))(keys_of(count))
    return jax.tree.map(np.asarray, drawn)


def assert_frequencies(counts, expected, power_against=0.15):
    """Chi-square test; it has to notice one share being off by `power_against` of itself."""
    counts, expected = np.asarray(counts), np.asarray(expected, float)
    expected = expected / expected.sum()
    present = expected > 0
    assert counts[~present].sum() == 0
    counts, expected = counts[present], expected[present]
    total, freedom = counts.sum(), len(counts) - 1
    statistic = ((counts - total * expected) ** 2 / (total * expected)).sum()
    limit = stats.chi2.isf(ALARM, freedom)
    off = expected.max() * power_against
    shift = total * off**2 * (1 / expected.max() + 1 / (1 - expected.max()))
    assert stats.ncx2.sf(limit, freedom, shift) > 0.99, "too few draws for the stated power"
    assert statistic < limit


def assert_same_distribution(sample, reference):
    """Kolmogorov-Smirnov test against a cdf or another sample.

    With 5,000 draws a side its limit is a distance of 0.039, and a distance of 0.06 between the
    distributions is noticed with a probability above 0.99.
    """
    assert stats.kstest(sample, reference).pvalue > ALARM


def test_operations_are_chosen_uniformly_and_skipped_half_the_time():
    drawn = policy_draws("rand-m9-mstd0.5-inc1")
    shares = {Kind.NONE: 15.0}
    for name in INCREASING:
        shares[OPERATIONS[name].kind] = 1.0
    for layer in range(2):
        counts = np.bincount(drawn.kind[layer], minlength=len(Kind))
        assert_frequencies(counts, [shares.get(kind, 0) for kind in Kind], 0.05)
    # The layers choose independently: 256 joint cells.
    joint = np.bincount(len(Kind) * drawn.kind[0] + drawn.kind[1], minlength=len(Kind) ** 2)
    one = np.array([shares.get(kind, 0) for kind in Kind])
    assert_frequencies(joint, np.outer(one, one).ravel())


def clipped_normal(mean, deviation, bound):
    """Distribution function of timm's magnitude: normal, clipped to 0 and the bound."""

    def cdf(level):
        return np.where(level >= bound, 1.0, stats.norm.cdf(level, mean, deviation))

    return cdf


@pytest.mark.parametrize(
    ("spec", "cdf"),
    [
        ("rand-m9-mstd0.5-inc1", clipped_normal(9, 0.5, 10)),
        ("rand-m9-mstd101-inc1", stats.uniform(0, 9).cdf),
        ("rand-m15-mmax20-mstd1-inc1", clipped_normal(15, 1, 20)),
        ("rand-m9-inc1", lambda level: (level >= 9).astype(float)),
    ],
)
def test_magnitudes_and_signs(spec, cdf):
    drawn = policy_draws(spec)
    scales = {Kind.ROTATE: 3.0, Kind.SHEAR_X: 0.03, Kind.TRANSLATE_X: 0.045 * 224}
    for kind, scale in scales.items():
        chosen = drawn.argument[drawn.kind == kind].astype(float)
        # 1,000 signs: a share of 0.6 instead of 0.5 is noticed with a probability above 0.99.
        assert stats.binomtest(int((chosen < 0).sum()), len(chosen)).pvalue > ALARM
        levels = np.abs(chosen) / scale
        if spec == "rand-m9-inc1":
            np.testing.assert_allclose(levels, 9, rtol=1e-6)
        else:
            assert_same_distribution(levels, cdf)
            bound = cdf(np.array([9.9999]))[0]
            assert (levels > 9.99999).mean() == pytest.approx(1 - bound, abs=0.03) or "m15" in spec


def test_clipping_makes_posterise_black_as_often_as_in_timm():
    drawn = policy_draws("rand-m9-mstd0.5-inc1")
    bits = drawn.argument[drawn.kind == Kind.POSTERIZE]
    # Magnitude 10 keeps no bit: P(N(9, 0.5) > 10) = 0.0228; below 7.5 two bits stay.
    expected = {0: stats.norm.sf(2), 1: stats.norm.cdf(2) - stats.norm.cdf(-3)}
    assert set(bits) <= {0, 1, 2}
    for number, share in expected.items():
        count = int((bits == number).sum())
        assert stats.binomtest(count, len(bits), share).pvalue > ALARM


def test_random_interpolation_is_a_fair_coin():
    drawn = policy_draws("rand-m9-mstd0.5-inc1", interpolation="random")
    assert stats.binomtest(int(drawn.bicubic.sum()), drawn.bicubic.size).pvalue > ALARM


@pytest.mark.parametrize("name", ["weights", "3aw"])
def test_weighted_sets_are_drawn_without_replacement(name):
    drawn = policy_draws(f"rand-m9-p1-t{name}")
    names = list(SETS[name])
    weights = np.array(list(SETS[name].values())) / sum(SETS[name].values())
    kinds = [OPERATIONS[one].kind for one in names]
    # Two operations of "3aw" are colour blends, so pairs of names are added up by kind.
    expected = np.zeros((len(Kind), len(Kind)))
    for first, kind in enumerate(kinds):
        for second, other in enumerate(kinds):
            if first != second:
                expected[kind, other] += weights[first] * weights[second] / (1 - weights[first])
    joint = np.ravel_multi_index(tuple(drawn.kind), expected.shape)
    assert_frequencies(np.bincount(joint, minlength=expected.size), expected.ravel(), 0.3)


@pytest.mark.parametrize("spec", ["original", "v0", "3a"])
def test_auto_augment_chooses_a_sub_policy_and_skips_each_operation(spec):
    drawn = policy_draws(spec)
    sub_policies = timm_augment.auto_augment_transform(spec, {"img_mean": (1, 2, 3)}).policy
    layers = len(sub_policies[0])
    expected = np.zeros((len(Kind),) * layers)
    for sub in sub_policies:
        outcomes = [[(Kind.NONE, 1 - op.prob), (OPERATIONS[op.name].kind, op.prob)] for op in sub]
        for outcome in np.ndindex(*(2,) * layers):
            picked = [outcomes[at][which] for at, which in enumerate(outcome)]
            expected[tuple(kind for kind, _ in picked)] += math.prod(share for _, share in picked)
    joint = np.ravel_multi_index(tuple(drawn.kind), expected.shape)
    assert_frequencies(np.bincount(joint, minlength=expected.size), expected.ravel(), 0.2)


def test_fixed_magnitudes_are_timms_float64_arguments():
    """Rests included, so that Pillow is given the very number that timm gives it."""
    drawn = policy_draws("v0")
    shears = drawn.argument.astype(float) + drawn.rest
    found = set(np.abs(shears[drawn.kind == Kind.SHEAR_Y]))
    expected = {level / 10 * 0.3 for level in (4, 3, 0, 7)}
    for one in found:
        assert min(abs(one - other) for other in expected) < 1e-15
    solarised = set(drawn.argument[drawn.kind == Kind.SOLARIZE])
    assert solarised == {float(int(level / 10 * 256)) for level in (3, 2, 8, 4, 10)}


def test_blur_of_three_augment_is_uniform():
    drawn = policy_draws("3a")
    deviations = drawn.argument[drawn.kind == Kind.BLUR]
    assert_same_distribution(deviations, stats.uniform(0.1, 1.9).cdf)


@pytest.mark.parametrize(("strength", "low", "high"), [(0.3, 0.7, 1.3), (1.5, 0.0, 2.5)])
def test_jitter_orders_and_factors(strength, low, high):
    drawn = jax.tree.map(
        np.asarray, jax.jit(lambda keys: draw_jitter(keys, strength))(keys_of(DRAWS))
    )
    code = (drawn.kind * np.array([[400], [20], [1]])).sum(axis=0)
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == 6
    assert_frequencies(counts, np.ones(6))
    for kind in (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR):
        factors = drawn.argument[drawn.kind == kind]
        assert_same_distribution(factors, stats.uniform(low, high - low).cdf)


def timm_boxes(count, height, width, **options):
    """Boxes that timm erases, read off an image of NaN."""
    random.seed(0)
    torch.manual_seed(0)
    eraser = RandomErasing(probability=1.0, mode="const", device="cpu", **options)
    boxes = []
    for _ in range(count):
        image = torch.full((1, height, width), torch.nan)
        eraser(image)
        rows, columns = torch.where(~torch.isnan(image[0]))
        if len(rows):
            top, left = int(rows.min()), int(columns.min())
            boxes.append((top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left))
    return np.array(boxes)


def test_erased_boxes_are_distributed_as_in_timm():
    height, width, count = 40, 64, 5_000
    reference = timm_boxes(count, height, width)
    options = replace(NORMALISED, erasing_probability=1.0)
    drawn = jax.jit(lambda keys: draw_boxes(keys, options, height, width))(keys_of(count))
    found = np.stack([np.asarray(side)[:, 0] for side in drawn], axis=1)
    found = found[found[:, 2] > 0]
    assert len(found) == pytest.approx(len(reference), abs=10)
    for column in range(4):
        assert_same_distribution(found[:, column], reference[:, column])
    for quantity in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 2] / box[:, 3]):
        assert_same_distribution(quantity(found), quantity(reference))


def test_number_of_boxes_is_uniform_and_area_is_shared():
    options = replace(NORMALISED, erasing_probability=0.4, erasing_count=3)
    drawn = jax.jit(lambda keys: draw_boxes(keys, options, 64, 64))(keys_of(10_000))
    numbers = (np.asarray(drawn.height) > 0).sum(axis=1)
    assert_frequencies(np.bincount(numbers, minlength=4), [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], 0.1)
    area = (np.asarray(drawn.height) * np.asarray(drawn.width)).sum(axis=1) / 64**2
    for number in (1, 2, 3):
        # Mean of uniform 0.02 to 1/3, whatever the number of boxes.
        assert area[numbers == number].mean() == pytest.approx(0.1767, abs=0.012)


def test_flip_crop_and_erasing_happen_as_often_as_asked():
    options = replace(NORMALISED, flip=0.3, crop_padding=4, erasing_probability=0.25)
    drawn = jax.jit(lambda keys: draw_choices(keys, options, 32, 32))(keys_of(20_000))
    flips = int(np.asarray(drawn.flip).sum())
    assert stats.binomtest(flips, 20_000, 0.3).pvalue > ALARM
    erased = int((np.asarray(drawn.boxes.height) > 0).sum())
    assert stats.binomtest(erased, 20_000, 0.25).pvalue > ALARM
    cells = np.ravel_multi_index(tuple(np.asarray(drawn.crop).T), (9, 9))
    assert_frequencies(np.bincount(cells, minlength=81), np.ones(81), 0.7)


def test_choices_depend_on_the_image_key_alone():
    draw = jax.jit(lambda keys: draw_choices(keys, RECIPE, 64, 48))
    together = draw(keys_of(12))
    apart = draw(keys_of(12)[::-1])
    for one, other in zip(
        jax.tree.leaves(together._replace(noise=0)),
        jax.tree.leaves(apart._replace(noise=0)),
        strict=True,
    ):
        if np.ndim(one):
            axis = [at for at, size in enumerate(one.shape) if size == 12][-1]
            np.testing.assert_array_equal(one, np.flip(other, axis))
    changed = draw(keys_of(12, epoch=1))
    assert (np.asarray(changed.boxes.top) != np.asarray(together.boxes.top)).any()


def test_draws_of_images_epochs_and_purposes_do_not_correlate():
    """Correlations of 30,000 pairs lie within 0.023 of zero 999.9 times in 1,000."""
    draw = jax.jit(lambda keys: draw_choices(keys, RECIPE, 64, 48))
    now, later = draw(keys_of(DRAWS)), draw(keys_of(DRAWS, epoch=1))
    moved = np.isin(now.policy.kind[0], [int(kind) for kind in LINE_KINDS])
    series = [
        np.asarray(part, float)
        for part in (
            now.flip,
            now.policy.kind[0],
            now.policy.kind[1],
            now.boxes.height[:, 0],
            moved,
            later.flip,
            later.policy.kind[0],
            later.boxes.height[:, 0],
        )
    ]
    series += [np.roll(one, 1) for one in series]
    correlations = np.corrcoef(np.stack(series)) - np.eye(len(series))
    correlations[1, 4] = correlations[4, 1] = correlations[9, 12] = correlations[12, 9] = 0
    assert np.abs(correlations).max() < 0.03
