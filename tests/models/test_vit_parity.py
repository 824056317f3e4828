"""Logits and gradients of the vision transformer beside timm's and beside plain PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

from deit_jax.models import deit, functional, vit
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.registry import model_spec

# Float32 against float32, the order of summation differs: about 12 blocks of rounding at 6e-8 each.
LOGITS = 1e-5
GRADIENTS = 1e-4

PUBLISHED = [spec.name for spec in deit.MODELS if spec.in_timm]


def build(name, **options):
    spec = model_spec(name)
    options = {"num_classes": 1000, "image_size": spec.image_size, **options}
    return lambda rngs: spec.build(**options, rngs=rngs)


def random_parameters(shapes, seed):
    """Parameters with trained-like magnitudes: no zero biases that could hide a mistake."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "scale":
            return jnp.asarray(1 + 0.1 * rng.standard_normal(leaf.shape), jnp.float32)
        deviation = 0.1 if leaf.ndim == 1 else 0.3 / math.sqrt(math.prod(leaf.shape[:-1]) / 4)
        return jnp.asarray(deviation * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def to_torch(params):
    """A timm state dict from a parameter tree, written independently of the library's own table."""
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *parents, name = [entry.key for entry in path]
        value = leaf if torch.is_tensor(leaf) else torch.from_numpy(np.array(leaf))
        if name == "kernel":
            name, value = "weight", value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
        elif name == "scale":
            name = "weight"
        state[".".join([*parents, name])] = value.contiguous()
    return state


def images_of(size, batch=2, seed=1):
    return np.random.default_rng(seed).standard_normal((batch, *size, 3)).astype(np.float32)


def timm_heads(model, images):
    """Both heads' logits (the second is None without a distillation token)."""
    out = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    return out if isinstance(out, tuple) else (out, None)


def relative_difference(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def compare(builder, timm_model, size, seed=0):
    """Both heads' logits, and the gradient of a loss that weighs every logit differently."""
    function, shapes, batch_stats = functional.abstract(builder)
    params = random_parameters(shapes, seed)
    timm_model.load_state_dict(to_torch(params))
    timm_model.train()  # without dropout: only so that a distilled model returns both heads
    images = images_of(size)
    theirs = timm_heads(timm_model, images)
    weights = [
        None if head is None else np.random.default_rng(7 + i).standard_normal(head.shape)
        for i, head in enumerate(theirs)
    ]

    def loss(params):
        heads, _ = function.head_logits(params, batch_stats, images)
        pairs = zip(heads, weights, strict=True)
        return sum((h * w).mean() for h, w in pairs if w is not None), heads

    grads, ours = jax.jit(jax.grad(loss, has_aux=True))(params)
    pairs = zip(theirs, weights, strict=True)
    sum((h * torch.from_numpy(w)).mean() for h, w in pairs if w is not None).backward()

    assert (ours[1] is None) == (theirs[1] is None)
    for our_head, their_head in zip(ours, theirs, strict=True):
        if our_head is not None:
            assert our_head.dtype == jnp.float32
            assert relative_difference(our_head, their_head) < LOGITS
    expected = {name: p.grad for name, p in timm_model.named_parameters()}
    actual = to_torch(grads)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_difference(actual[name], gradient) < GRADIENTS, name


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_timms(name):
    """Strict: every tensor of timm's model has one of ours of the same shape, and none is left."""
    _, shapes, _ = functional.abstract(build(name))
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
        ours = to_torch(jax.tree.map(lambda leaf: torch.empty(leaf.shape), shapes))
    ours = {key: tuple(value.shape) for key, value in ours.items()}
    assert ours == {key: tuple(value.shape) for key, value in theirs.items()}
    assert functional.count_parameters(shapes) == model_spec(name).parameters


@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_distilled_patch16_224",
        pytest.param("deit_tiny_patch16_224", marks=pytest.mark.full),
    ],
)
def test_published_size_matches_timm(name):
    model = timm.create_model(name)
    if "distilled" in name:
        model.set_distilled_training(True)
    compare(build(name), model, (224, 224))


@pytest.mark.parametrize(
    ("size", "patch", "width", "heads", "distilled"),
    [
        ((64, 64), 16, 384, 6, False),  # small
        ((64, 64), 16, 768, 12, True),  # base
        ((96, 96), 16, 96, 3, False),  # another head width
        ((32, 80), 16, 64, 1, False),  # wide, one head
        ((48, 24), 8, 64, 2, True),  # tall, other patches
    ],
)
def test_other_sizes_match_timm(size, patch, width, heads, distilled):
    shape = dict(patch_size=patch, depth=2, num_heads=heads)
    cls = VisionTransformerDistilled if distilled else TimmVisionTransformer
    model = cls(img_size=size, embed_dim=width, num_classes=7, **shape)
    if distilled:
        model.set_distilled_training(True)

    def builder(rngs):
        sizes = VitArchitecture(width=width, distilled=distilled, **shape)
        return vit.VisionTransformer(sizes, num_classes=7, image_size=size, rngs=rngs)

    compare(builder, model, size)


def test_inference_is_the_mean_of_both_heads_as_in_timm():
    shape = dict(patch_size=8, depth=1, num_heads=2)

    def builder(rngs):
        sizes = VitArchitecture(width=32, distilled=True, **shape)
        return vit.VisionTransformer(sizes, num_classes=7, image_size=(16, 16), rngs=rngs)

    function, shapes, batch_stats = functional.abstract(builder)
    params = random_parameters(shapes, 3)
    model = VisionTransformerDistilled(img_size=16, embed_dim=32, num_classes=7, **shape).eval()
    model.load_state_dict(to_torch(params))
    images = images_of((16, 16))
    theirs = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    ours = jax.jit(lambda params: function.merge(params, batch_stats)(images))(params)
    assert relative_difference(ours, theirs) < LOGITS


def test_features_and_attention_maps_match_plain_torch():
    """All in float64 on their side, written from the equations rather than taken from timm."""
    size, width, heads, depth = (24, 16), 32, 4, 3

    def builder(rngs):
        sizes = VitArchitecture(8, width, depth, heads, distilled=True)
        return vit.VisionTransformer(sizes, num_classes=5, image_size=size, rngs=rngs)

    function, shapes, batch_stats = functional.abstract(builder)
    params = random_parameters(shapes, 5)
    images = images_of(size)

    @jax.jit
    def everything(params):
        model = function.merge(params, batch_stats)
        return model.features(images), model.attention_maps(images), model.head_logits(images)

    our_features, our_maps, ours = everything(params)
    state = {name: value.double() for name, value in to_torch(params).items()}
    features, maps = plain_torch(state, torch.from_numpy(images).double(), 8, heads, depth)
    assert relative_difference(our_features, features) < LOGITS
    assert relative_difference(our_maps, maps) < LOGITS
    np.testing.assert_allclose(our_maps.sum(-1), 1, atol=1e-6)

    class_logits = features[:, 0] @ state["head.weight"].T + state["head.bias"]
    distill_logits = features[:, 1] @ state["head_dist.weight"].T + state["head_dist.bias"]
    assert relative_difference(ours[0], class_logits) < LOGITS
    assert relative_difference(ours[1], distill_logits) < LOGITS


def plain_torch(state, images, patch, heads, depth):
    """Vision transformer from its definition, one token grid cell at a time for the patches."""

    def dense(x, name):
        return x @ state[name + ".weight"].T + state[name + ".bias"]

    def norm(x, name):
        normal = (x - x.mean(-1, keepdim=True)) / torch.sqrt(
            x.var(-1, keepdim=True, unbiased=False) + 1e-6
        )
        return normal * state[name + ".weight"] + state[name + ".bias"]

    batch, height, width, _ = images.shape
    kernel = state["patch_embed.proj.weight"]
    tokens = [state["cls_token"].expand(batch, -1, -1), state["dist_token"].expand(batch, -1, -1)]
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            cell = images[:, top : top + patch, left : left + patch]
            projected = torch.einsum("byxc,ocyx->bo", cell, kernel)
            tokens.append((projected + state["patch_embed.proj.bias"])[:, None])
    x = torch.cat(tokens, dim=1) + state["pos_embed"]
    maps = []
    for block in range(depth):
        name = f"blocks.{block}"
        query, key, value = dense(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=-1)
        mixed, weights = [], []
        for q, k, v in zip(
            *(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True
        ):
            scores = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
            weights.append(scores)
            mixed.append(scores @ v)
        maps.append(torch.stack(weights, dim=1))
        x = x + dense(torch.cat(mixed, dim=-1), f"{name}.attn.proj")
        hidden = dense(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + dense(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm"), torch.stack(maps)
