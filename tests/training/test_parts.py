"""Layer-wise learning rates against timm, and parts of a network that are frozen."""

from functools import partial

import jax
import numpy as np
import pytest
from timm.models.deit import VisionTransformerDistilled
from timm.optim import param_groups_layer_decay

from deit_jax.config.defaults import default_config
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.freezing import trainable
from deit_jax.training.layer_decay import layer_scales
from deit_jax.training.optimizer import make_optimizer
from deit_jax.trees import flatten
from deit_jax.weights.transformer_layout import to_foreign
from tests.training.small_runs import batches, convnet, make, small_config, transformer

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_layer_scales_equal_timm():
    _, params, _ = abstract(model_builder("deit_micro_distilled_patch4_16"))
    scales = jax.tree.map(
        lambda leaf, scale: np.full(leaf.shape, scale, np.float32),
        params,
        layer_scales(params, 0.65),
    )
    model = VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=64, depth=3, num_heads=2, num_classes=10
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = to_foreign(scales, {}, "timm")
    for group in param_groups_layer_decay(model, layer_decay=0.65):
        for parameter in group["params"]:
            # Powers of the same number, once in float32.
            np.testing.assert_allclose(
                tensors.pop(names[id(parameter)]), group["lr_scale"], rtol=1e-6
            )
    assert not tensors


def test_layer_decay_scales_the_whole_update():
    _, params, _ = abstract(model_builder("deit_micro_patch4_16"))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), params)
    config = default_config().optimizer
    plain = make_optimizer(config, params)
    config.layer_decay = 0.5
    scaled = make_optimizer(config, params)
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    a, _ = plain.update(grads, plain.init(params), params)
    b, _ = scaled.update(grads, scaled.init(params), params)
    # Blocks 0 to 2, then heads: factors are powers of two, so exact. Decay is part of the update.
    for path, power in ((("cls_token",), 4), (("head", "kernel"), 0), (("norm", "scale"), 1)):
        np.testing.assert_array_equal(flatten(b)[path], flatten(a)[path] * 0.5**power)


def test_layer_decay_of_a_convnet_is_refused():
    with pytest.raises(ValueError, match="only transformers"):
        layer_scales({"stem": {}}, 0.5)


def moved(before, after):
    """Paths of arrays of which any bit changed."""
    before, after = flatten(before), flatten(after)
    return {path for path in before if before[path].tobytes() != after[path].tobytes()}


@pytest.mark.parametrize(
    ("model", "parts"), [(transformer, "attention"), (transformer, "heads"), (convnet, "heads")]
)
def test_frozen_parameters_keep_every_bit_and_have_no_state(model, parts):
    # Large decay and clipping: neither may touch, or count, what is frozen.
    config = small_config(training__parts=parts, ema__decay=0.7)
    config.optimizer.update(weight_decay=0.3, clip_norm=1.0)
    _, params, _ = abstract(partial(model, config))
    trained = trainable(params, config)
    _, state, step = make(config, model, mixing=UNMIXED, augment=NORMALISED)
    start = jax.device_get(state)
    for batch in batches(2):
        state = step(state, {}, batch)
    after = jax.device_get(state)
    expected = {path for path, train in flatten(trained).items() if train}
    heads = {path for path in expected if path[0] in ("head", "head_dist")}
    assert heads and (expected == heads) == (parts == "heads")
    assert moved(start["params"], after["params"]) == expected
    assert moved(start["ema"]["params"], after["ema"]["params"]) == expected
    assert not moved(start["batch_stats"], after["batch_stats"])
    sizes = sum(flatten(params)[path].size for path in expected)
    moments = [leaf for leaf in jax.tree.leaves(after["opt_state"]) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sizes


def test_attention_is_what_the_reference_trains_and_the_second_head():
    config = small_config(training__parts="attention")
    _, params, _ = abstract(partial(transformer, config))
    chosen = {path for path, train in flatten(trainable(params, config)).items() if train}
    for path in flatten(params):
        name = ".".join(path)
        wanted = ".attn." in name or name == "pos_embed" or path[0] in ("head", "head_dist")
        assert (path in chosen) == wanted, name
    _, convolutions, _ = abstract(partial(convnet, config))
    with pytest.raises(ValueError, match="choose 'all' or 'heads'"):
        trainable(convolutions, config)


def test_evaluation_mode_trains_what_inference_computes():
    losses = []
    for depth in (0.0, 0.9):
        config = small_config(model__drop_path_rate=depth, training__eval_mode=True)
        _, state, step = make(config, mixing=UNMIXED, augment=NORMALISED)
        after = step(state, {}, next(batches(1)))
        losses.append(float(after["sums"]["loss"]))
        # Both heads have the same gradient, since the loss sees their mean.
        change = after["opt_state"][0].mu
        np.testing.assert_allclose(
            change["head"]["bias"], change["head_dist"]["bias"], rtol=1e-5, atol=1e-8
        )
    assert losses[0] == losses[1]


def test_a_second_head_without_labels_or_teacher_stays():
    config = small_config(distillation__without_teacher="class")
    _, params, _ = abstract(partial(transformer, config))
    idle = {path for path, train in flatten(trainable(params, config)).items() if not train}
    assert idle == {("head_dist", "kernel"), ("head_dist", "bias")}
