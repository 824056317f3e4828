"""DeiT III beside timm: LayerScale, positions of patches only, one depth rate."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import timm
import torch
from flax import nnx
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

from deit_jax.api import load_weights
from deit_jax.models import functional, vit
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.registry import list_models, model_spec
from deit_jax.parity.our_model import random_subject, random_weights
from deit_jax.parity.torch_models import build_torch_side
from deit_jax.weights.fit import Grids, fit
from deit_jax.weights.transformer_layout import detect_layout, from_foreign, to_foreign
from tests.models.test_vit_parity import (
    LOGITS,
    compare,
    images_of,
    relative_difference,
    timm_heads,
    to_torch,
)
from tests.weights.test_transformer_layout import equal

RENAMED = "our parameters, renamed"
PUBLISHED = [n for n in list_models("deit3*") if model_spec(n).in_timm]


def build(name, depth=None, **changes):
    spec = model_spec(name)
    spec = spec.resized(depth=depth) if depth else spec
    options = {"num_classes": 1000, "image_size": spec.image_size, **changes}
    return lambda rngs: spec.build(**options, rngs=rngs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_timms(name):
    # All blocks are alike; the parameters of all are counted in test_registry.py.
    _, shapes, _ = functional.abstract(build(name, depth=2))
    with torch.device("meta"):
        theirs = timm.create_model(name, depth=2).state_dict()
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    shapes_of = {key: tuple(value.shape) for key, value in theirs.items()}
    for table in (to_torch(zeros), to_foreign(zeros, {}, "timm")):
        assert {key: tuple(value.shape) for key, value in table.items()} == shapes_of
    # The reference calls the factors after their place; the rest as timm.
    official = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2") for key in theirs
    }
    assert to_foreign(zeros, {}, "official").keys() == official


@pytest.mark.parametrize(
    ("size", "patch", "width", "heads"), [((48, 32), 8, 48, 3), ((28, 28), 14, 80, 1)]
)
def test_logits_and_gradients_equal_timms(size, patch, width, heads):
    shape = dict(patch_size=patch, depth=2, num_heads=heads)
    model = TimmVisionTransformer(
        img_size=size, embed_dim=width, num_classes=7, no_embed_class=True, init_values=1.0, **shape
    )

    def builder(rngs):
        sizes = VitArchitecture(width=width, deit3=True, **shape)
        return vit.VisionTransformer(sizes, num_classes=7, image_size=size, rngs=rngs)

    compare(builder, model, size)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [n for n in PUBLISHED if "huge" not in n and "large" not in n])
def test_published_sizes_equal_timms(name):
    compare(build(name), timm.create_model(name), model_spec(name).image_size)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [n for n in PUBLISHED if "huge" in n or "large" in n])
def test_logits_of_the_largest_equal_timms(name):
    size = model_spec(name).image_size
    function, shapes, _ = functional.abstract(build(name))
    params = random_weights(shapes, {}, 0)[0]
    images = images_of(size, batch=1)
    # 0.3 to 0.6 thousand million parameters: never more than two copies of them at a time.
    with torch.device("meta"):
        model = timm.create_model(name)
    model.load_state_dict(to_torch(params), assign=True)
    assert len(model.blocks) == len(params["blocks"]) >= 24
    with torch.no_grad():
        theirs, _ = timm_heads(model.eval(), images)
    del model
    heads, _ = jax.jit(function.head_logits)(params, {}, images)
    assert heads[1] is None
    assert relative_difference(heads[0], theirs) < LOGITS


def test_initialisation_and_depth_rates():
    function, params, _ = functional.split(
        build("deit3_micro_patch4_16", num_classes=10, drop_path_rate=0.3)(nnx.Rngs(0))
    )
    assert params["pos_embed"].shape == (1, 16, 64)
    model = function.merge(params, {})
    for block in model.blocks.values():
        # models_v2.py: init_scale=1e-4, dpr_constant.
        np.testing.assert_array_equal(block.ls1.gamma[...], np.float32(1e-4))
        assert block.drop_path_rate == 0.3
    # The class token enters without a position: shifting all positions leaves it as it is.
    images = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)
    tokens = jax.jit(lambda images: model.activations(images)["tokens"])(images)
    np.testing.assert_array_equal(tokens[0, 0], params["cls_token"][0, 0])


def random_params(name="deit3_micro_patch4_16", **changes):
    _, shapes, _ = functional.abstract(build(name, num_classes=10, **changes))
    return random_weights(shapes, {}, 0)[0]


@pytest.mark.parametrize("layout", ["timm", "official"])
def test_weights_there_and_back(layout, tmp_path):
    params = random_params()
    tensors = to_foreign(params, {}, layout)
    assert detect_layout(tensors) == layout
    back, _, left_over = from_foreign(tensors, layout)
    assert equal(back, params) and left_over == []
    # And as a file of the reference, into a model.
    path = tmp_path / "weights.pth"
    torch.save({"model": {k: torch.from_numpy(v) for k, v in tensors.items()}}, path)
    model = build("deit3_micro_patch4_16", num_classes=10)(nnx.Rngs(0))
    report = load_weights(model, path)
    assert report.warning == ""
    assert equal(functional.split(model)[1], params)


def test_transformers_has_no_such_model():
    with pytest.raises(ValueError, match="no LayerScale"):
        to_foreign(random_params(), {}, "transformers")


def test_positions_are_resized_without_a_row_for_the_class_token():
    old, new = random_params(), random_params(image_size=(24, 16))
    fitted = fit((old, {}), (new, {}), Grids((4, 4), (6, 4))).params["pos_embed"]
    grid = torch.from_numpy(old["pos_embed"]).reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(6, 4), mode="bicubic")
    # Ours is computed in float64, theirs in float32 from values about 0.02.
    np.testing.assert_allclose(
        fitted, expected.permute(0, 2, 3, 1).reshape(1, 24, 64), atol=1e-7, rtol=0
    )


def test_weights_of_deit_are_not_taken_for_deit_iii():
    _, plain, _ = functional.abstract(build("deit_micro_patch4_16", num_classes=10))
    loaded = random_weights(plain, {}, 0)[0]
    with pytest.raises(ValueError, match="do not fit"):
        fit((loaded, {}), (random_params(), {}))


@pytest.mark.parametrize("layout", ["timm", "official"])
@pytest.mark.parametrize("against", ["timm", "official"])
def test_compare_gives_each_side_the_file_itself_where_the_names_are_its_own(layout, against):
    subject = random_subject("deit3_micro_patch4_16", 0)
    tensors = to_foreign(subject.params, {}, layout)
    side = build_torch_side(replace(subject, tensors=tensors), against)
    assert side.loaded_from == ("the file itself" if layout == against else RENAMED)
    assert equal(side.parameters(), subject.params)
