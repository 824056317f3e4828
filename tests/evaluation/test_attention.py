"""Attention weights, rollout and cosines, beside timm, transformers and the definitions."""

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import deit_jax
from deit_jax.evaluation.attention import cosine_layers, look, on_patches, rollout, token_cosines
from deit_jax.models.functional import abstract, split
from deit_jax.models.registry import model_builder
from tests.weights.small_models import DISTILLED, PLAIN, images, timm_model, transformers_model

# Shares of attention, at most 1; float32 on both sides.
EXACT = dict(rtol=0, atol=1e-5)


def timm_maps(model, pixels):
    """What timm's attention multiplies the values by: unfused, each block drops out nothing of."""
    maps, hooks = [], []
    for block in model.blocks:
        block.attn.fused_attn = False
        hooks.append(
            block.attn.attn_drop.register_forward_hook(lambda _, args, out: maps.append(out))
        )
    with torch.no_grad():
        model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return torch.stack(maps).numpy()


def loaded(name, theirs, tmp_path, size=(16, 16)):
    # Tensors do not tell 3x6 patches from 6x3.
    said = {"deit_jax.image_size": f"{size[0]} {size[1]}"}
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors", said)
    return deit_jax.create_model(name, weights=tmp_path / "theirs.safetensors")


@pytest.mark.parametrize(("name", "size"), [(DISTILLED, (12, 24)), (PLAIN, (16, 16))])
def test_weights_are_timms(name, size, tmp_path):
    theirs = timm_model(name == DISTILLED, size)
    model = loaded(name, theirs, tmp_path, size)
    pixels = images(size)
    maps = timm_maps(theirs, pixels)
    function, *trees = split(model)

    @jax.jit
    def both(trees):
        model = function.merge(*trees)
        return model.attention_maps(pixels), look(model, pixels)

    found, looks = both(trees)
    np.testing.assert_allclose(found, maps, **EXACT)
    prefix = 2 if name == DISTILLED else 1
    np.testing.assert_allclose(looks.heads, maps[..., :prefix, :], **EXACT)
    np.testing.assert_allclose(looks.rollout, np.asarray(rollout(maps))[..., :prefix, :], **EXACT)
    assert looks.cosines.shape == ((6, 2) if prefix == 2 else (0, 2))
    grid = (size[0] // 4, size[1] // 4)
    patches = on_patches(np.asarray(looks.heads), grid)
    # The patch of the second row's third column.
    np.testing.assert_array_equal(patches[..., 1, 2], looks.heads[..., prefix + grid[1] + 2])


def test_weights_are_transformers(tmp_path):
    theirs = transformers_model("teacher", attn_implementation="eager")
    theirs.save_pretrained(tmp_path)
    model = deit_jax.create_model(DISTILLED, weights=tmp_path)
    pixels = images()
    with torch.no_grad():
        out = theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2), output_attentions=True)
    maps = torch.stack(out.attentions).numpy()
    found = jax.jit(lambda pixels: model.attention_maps(pixels))(pixels)
    np.testing.assert_allclose(found, maps, **EXACT)


def test_cosines_are_those_of_timms_tokens(tmp_path):
    theirs = timm_model(distilled=True)
    model = loaded(DISTILLED, theirs, tmp_path)
    pixels, seen = images(), []
    theirs.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for module in (*theirs.blocks, theirs.norm):
        module.register_forward_hook(lambda _, args, out: seen.append(out))
    with torch.no_grad():
        theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    cosine = torch.nn.functional.cosine_similarity
    learned = cosine(theirs.cls_token[0], theirs.dist_token[0]).detach().expand(2)
    expected = torch.stack([learned, *(cosine(x[:, 0], x[:, 1], dim=-1) for x in seen)])
    found = jax.jit(lambda pixels: token_cosines(model, pixels))(pixels)
    np.testing.assert_allclose(found, expected, **EXACT)
    assert len(cosine_layers(3)) == len(found) == 6


def test_rollout_is_the_product_of_the_blocks():
    scores = np.random.default_rng(0).standard_normal((3, 2, 4, 5, 5))
    maps = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = np.asarray(rollout(maps.astype(np.float32)))
    for image in range(2):
        flow = np.eye(5)
        for block in range(3):
            mean = sum(maps[block, image, head] for head in range(4)) / 4
            # From the output's tokens back to the input's, half along the residual branch.
            flow = 0.5 * mean @ flow + 0.5 * flow
            np.testing.assert_allclose(found[block, image], flow, rtol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_a_convnet_and_a_missing_token_are_refused():
    convnet, plain = (
        function.merge(*shapes)
        for function, *shapes in map(abstract, map(model_builder, ("regnety_micro", PLAIN)))
    )
    with pytest.raises(ValueError, match="a convnet, which has no attention"):
        look(convnet, images())
    with pytest.raises(ValueError, match="no distillation token"):
        token_cosines(plain, images())
