"""Groups of keys: values have the form of their keys, whoever makes the group."""

import pytest

from deit_jax.schema.images import NORMALISED, UNMIXED, AugmentOptions, DataOptions, MixOptions


def test_values_take_the_form_of_their_keys():
    options = AugmentOptions(mean=[0, 0, 0], erasing_area=[0.1, 1])
    assert (options.mean, options.erasing_area) == ((0.0, 0.0, 0.0), (0.1, 1.0))
    assert hash(options) != hash(AugmentOptions())
    assert (options.fill, AugmentOptions().fill) == ((0, 0, 0), (124, 116, 104))
    assert (NORMALISED.flip, NORMALISED.erasing_probability, UNMIXED.active) == (0, 0, False)


@pytest.mark.parametrize(
    ("group", "values", "words"),
    [
        (AugmentOptions, {"flip": 1.5}, "flip is 1.5; it must be between 0 and 1"),
        (AugmentOptions, {"erasing_mode": "noise"}, "erasing_mode is 'noise'; it must be one of"),
        (AugmentOptions, {"std": (0.2, 0.0, 0.2)}, "must be positive"),
        (AugmentOptions, {"erasing_area": (0.3, 0.1)}, "low <= high"),
        (AugmentOptions, {"color_jitter": (0.1, 0.2)}, "color_jitter is .* give a number"),
        (MixOptions, {"mode": "half"}, "one of batch, pair, elem"),
        (MixOptions, {"mixup_alpha": -1.0}, "at least 0"),
        (MixOptions, {"minmax": (0.5, 0.2)}, "two rising shares"),
        (DataOptions, {"repeats": 0}, "repeats is 0; it must be positive"),
        (DataOptions, {"crop": "centre"}, "one of random_resized, simple, none"),
        (DataOptions, {"crop_ratio": (0.0, 1.0)}, "two ratios, 0 < low"),
    ],
)
def test_wrong_values_are_named(group, values, words):
    with pytest.raises(ValueError, match=words):
        group(**values)
