"""Names, counts and options of every registered model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deit_jax
from deit_jax.models.functional import abstract, count_parameters, initialise, split
from deit_jax.models.registry import list_models, model_builder, model_spec

# Counted in the reference implementation's and timm's models; the micro ones are this project's.
PARAMETERS = {
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_patch16_384": 86_859_496,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_distilled_patch16_384": 87_630_032,
    "deit3_small_patch16_224": 22_059_496,
    "deit3_small_patch16_384": 22_205_416,
    "deit3_medium_patch16_224": 38_849_512,
    "deit3_base_patch16_224": 86_585_320,
    "deit3_base_patch16_384": 86_877_160,
    "deit3_large_patch16_224": 304_374_760,
    "deit3_large_patch16_384": 304_763_880,
    "deit3_huge_patch14_224": 632_126_440,
    "regnety_040": 20_646_656,
    "regnety_080": 39_180_068,
    "regnety_120": 51_822_544,
    "regnety_160": 83_590_140,
    "regnety_320": 145_046_770,
    "regnety_080_tv": 39_381_472,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "efficientnet_b0": 5_288_548,
    "tf_efficientnet_b0": 5_288_548,
    "efficientnet_b3": 12_233_232,
    "tf_efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "tf_efficientnet_b4": 19_341_616,
    "efficientnet_b7": 66_347_960,
    "tf_efficientnet_b7": 66_347_960,
    "tf_efficientnet_lite0": 4_652_008,
    "tf_efficientnet_lite1": 5_416_680,
    "tf_efficientnet_lite2": 6_092_072,
}


@pytest.mark.parametrize("name", list_models())
def test_parameter_count(name):
    """Those of timm's models are counted where their names and shapes are compared with timm."""
    spec = model_spec(name)
    if not spec.in_timm:
        assert count_parameters(abstract(model_builder(name))[1]) == spec.parameters
    if "micro" not in name:
        # A model without an entry here has not been counted against its reference.
        assert spec.parameters == PARAMETERS[name]


def test_all_published_names_are_there():
    assert PARAMETERS.keys() <= set(list_models())
    assert list_models("*distilled*") == [n for n in list_models() if "distilled" in n]


@pytest.mark.slow
def test_options_reach_the_model():
    model = deit_jax.create_model(
        "deit_micro_distilled_patch4_16", num_classes=7, image_size=(8, 24), seed=3
    )
    images = jax.ShapeDtypeStruct((2, 8, 24, 3), jnp.float32)
    logits, second = jax.eval_shape(model.head_logits, images)
    assert logits.shape == second.shape == jax.eval_shape(model, images).shape == (2, 7)
    other = deit_jax.create_model(
        "deit_micro_distilled_patch4_16", num_classes=7, image_size=(8, 24), seed=4
    )
    assert np.any(model.head.kernel[...] != other.head.kernel[...])


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="deit_small_patch16_224"):
        deit_jax.create_model("deit_smal_patch16_224")


def test_image_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        deit_jax.create_model("deit_tiny_patch16_224", image_size=230)


@pytest.mark.slow
def test_taken_apart_and_put_together():
    build = model_builder("deit_micro_patch4_16")
    function, shapes, stats = abstract(build)
    params, _ = jax.jit(lambda key: initialise(build, key))(jax.random.key(0))
    assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(lambda a: a.shape, shapes)
    assert stats == {}
    images = jnp.ones((2, 16, 16, 3))
    (logits, none), after = jax.jit(function.head_logits)(params, {}, images)
    assert none is None and after == {}
    again = jax.jit(function.merge(params, {}).__call__)(images)
    np.testing.assert_array_equal(again, logits)
    again, same, _ = split(function.merge(params, {}))
    assert again == function
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), params, same))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"img_size": 96}, TypeError, "no argument 'img_size'; it is called image_size here"),
        ({"drop_path": 0.1}, TypeError, "'drop_path'; it is called drop_path_rate here"),
        ({"img_size": 96, "weights": "none/there"}, TypeError, "called image_size"),
        ({"in_chans": 1}, TypeError, "no argument 'in_chans'"),
        ({"image_size": "96"}, ValueError, "image_size is '96'; give height and width"),
        ({"image_size": (96, 96, 3)}, ValueError, "give height and width"),
        ({"num_classes": 0}, ValueError, "num_classes is 0; it must be positive"),
        ({"num_classes": 2.0}, ValueError, "num_classes is 2.0; give a whole number"),
        ({"drop_path_rate": 1}, ValueError, "below 1"),
    ],
)
def test_wrong_options_are_named(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        deit_jax.create_model("deit_micro_patch4_16", **options)


def test_all_bits_of_a_seed_count():
    def patch_kernel(seed):
        model = deit_jax.create_model("deit_micro_patch4_16", num_classes=2, seed=seed)
        return np.asarray(model.patch_embed.proj.kernel[...])

    kernels = [patch_kernel(seed) for seed in (3, 3 + 2**32, 3 + 2**33, 2**63, 2**64 - 1)]
    for at, one in enumerate(kernels):
        assert all((one != other).any() for other in kernels[:at])
