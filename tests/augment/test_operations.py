"""Arguments and policies against timm's own tables."""

import jax.numpy as jnp
import numpy as np
import pytest
from timm.data import auto_augment as timm_augment

from deit_jax.augment.operations import OPERATIONS, Draw, argument_at, operation_arguments
from deit_jax.augment.randaugment import INCREASING, PLAIN, parse_policy

HEIGHT, WIDTH = 160, 224
LEVELS = [*range(21), 0.3, 2.5, 7.77, 9.31]
SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
RECIPE = "rand-m9-mstd0.5-inc1"


def timm_argument(monkeypatch, name, level, sign, uniform):
    """What timm hands to Pillow, with its own coins set."""
    monkeypatch.setattr(timm_augment.random, "random", lambda: 0.25 if sign > 0 else 0.75)
    if name == "GaussianBlurRand":
        monkeypatch.setattr(
            timm_augment.random, "uniform", lambda low, high: low + uniform * (high - low)
        )
        (factor,) = timm_augment.LEVEL_TO_ARG[name](level, {})
        return timm_augment.random.uniform(0.1, 2.0 * factor)
    level_to_argument = timm_augment.LEVEL_TO_ARG[name]
    if level_to_argument is None:
        return 0.0
    (argument,) = level_to_argument(level, {"translate_pct": 0.45})
    if name == "Desaturate":
        return min(1.0, max(0.0, 1.0 - argument))
    return argument * {"TranslateXRel": WIDTH, "TranslateYRel": HEIGHT}.get(name, 1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_equal_timm(monkeypatch, name):
    signs = (1, -1) if name in SIGNED or name.endswith("Increasing") else (1,)
    levels = [level for level in LEVELS if "Blur" not in name or level <= 10]
    pairs = [(level, sign) for level in levels for sign in signs]
    expected = [timm_argument(monkeypatch, name, *pair, 0.375) for pair in pairs]
    assert [argument_at(name, *pair, 0.375, HEIGHT, WIDTH) for pair in pairs] == expected
    draw = Draw(*jnp.float32(pairs).T, jnp.full(len(pairs), 0.375), HEIGHT, WIDTH)
    found = operation_arguments((name,), jnp.zeros(len(pairs), jnp.int32), draw)
    # Three roundings to float32, relative to the largest intermediate value.
    assert np.asarray(found) == pytest.approx(np.array(expected), rel=3e-7, abs=3e-7)


def test_sets_equal_timm():
    assert list(PLAIN) == timm_augment._RAND_TRANSFORMS
    assert list(INCREASING) == timm_augment._RAND_INCREASING_TRANSFORMS


RAND_SPECS = [
    RECIPE, "rand-m9-mstd0.5", "rand-m15-n2-mstd1.0-inc1", "rand-m7-mstd0.5-inc1", "rand-n3-m6",
    "rand-mstd1-tweights", "rand-m6-n3-t3aw-mstd0.5", "rand-m9-p0.8-t3a", "rand-m20-mmax20-inc1",
    "rand-m9-mstd101-inc1", "rand",
]  # fmt: skip


@pytest.mark.parametrize("spec", RAND_SPECS)
def test_rand_augment_specs_equal_timm(spec):
    expected = timm_augment.rand_augment_transform(spec, {"img_mean": (1, 2, 3)})
    policy = parse_policy(spec)
    assert not policy.linked and len(policy.layers) == expected.num_layers
    for layer in policy.layers:
        assert layer == tuple((op.name, op.prob, op.magnitude) for op in expected.ops)
    operation = expected.ops[0]
    assert policy.magnitude_std == operation.magnitude_std
    assert policy.magnitude_max == (operation.magnitude_max or 10)
    weights = expected.choice_weights
    if weights is None:
        assert policy.weights == ()
    else:
        np.testing.assert_allclose(np.array(policy.weights) / sum(policy.weights), weights)


@pytest.mark.parametrize(
    "spec", ["original", "originalr", "v0", "v0r", "3a", "original-mstd0.5", "v0-mstd1"]
)
def test_auto_augment_policies_equal_timm(spec):
    expected = timm_augment.auto_augment_transform(spec, {"img_mean": (1, 2, 3)}).policy
    policy = parse_policy(spec)
    assert policy.linked
    found = list(zip(*policy.layers, strict=True))
    assert found == [tuple((op.name, op.prob, op.magnitude) for op in sub) for sub in expected]
    assert policy.magnitude_std == expected[0][0].magnitude_std


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("augmix-m5", "Unknown augmentation policy 'augmix'"),
        ("rand-q3", "Unknown section 'q3'"),
        ("rand-mstdinf", "Unknown section 'mstdinf'"),
        ("rand-m9-tnone", "Unknown set 'tnone'"),
        ("rand-n0", "cannot draw 0"),
        ("rand-n15-t3aw", "cannot draw 15 of 14"),
        ("rand-p1.5", "between 0 and 1"),
        ("v0-m3", "Unknown section 'm3'"),
    ],
)
def test_wrong_specs_are_named(spec, words):
    with pytest.raises(ValueError, match=words):
        parse_policy(spec)
