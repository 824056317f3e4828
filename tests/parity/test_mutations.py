"""What a comparison is worth: every mistake is found, and where it was made is named."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from deit_jax.parity.activations import compare_activations, layer_names, our_activations
from deit_jax.parity.gradients import compare_gradients, labels_for, our_gradients
from deit_jax.parity.torch_models import build_torch_side
from deit_jax.weights.transformer_layout import to_foreign
from tests.parity.our_models import images_of, small


@pytest.fixture(scope="module")
def subject():
    return small()


@pytest.fixture(scope="module")
def images(subject):
    return images_of(subject)


@pytest.fixture(scope="module")
def ours(subject, images):
    return our_activations(subject, images)


def one_weight(name, amount=0.01):
    def mutate(model):
        parameter = dict(model.named_parameters())[name]
        parameter.data.view(-1)[parameter.numel() // 2] += amount

    return mutate


def tanh_gelu(model):
    for block in model.blocks:
        block.mlp.act = torch.nn.GELU(approximate="tanh")


def epsilon(value, first_block=0):
    def mutate(model):
        for block in model.blocks[first_block:]:
            block.norm1.eps = block.norm2.eps = value

    return mutate


def swap_query_and_key(model):
    qkv = model.blocks[1].attn.qkv
    order = torch.cat([torch.arange(32, 64), torch.arange(32), torch.arange(64, 96)])
    # Bias included: without it, the scores would only be transposed.
    qkv.weight.data, qkv.bias.data = qkv.weight.data[order], qkv.bias.data[order]


def swap_heads(model):
    model.head, model.head_dist = model.head_dist, model.head


def transpose_positions(model):
    grid = model.pos_embed.data[:, 2:].reshape(1, 4, 3, -1).transpose(1, 2)
    model.pos_embed.data[:, 2:] = grid.reshape(1, 12, -1)


MUTATIONS = {
    "weight of the patches": (one_weight("patch_embed.proj.weight"), "patch_embed"),
    "class token": (one_weight("cls_token"), "tokens"),
    "position": (one_weight("pos_embed"), "tokens"),
    "transposed positions": (transpose_positions, "tokens"),
    "scale of a normalisation": (one_weight("blocks.1.norm2.weight"), "blocks.1.norm2"),
    "bias of the values": (one_weight("blocks.0.attn.proj.bias"), "blocks.0.attn"),
    "query and key": (swap_query_and_key, "blocks.1.attn"),
    "weight of an MLP": (one_weight("blocks.1.mlp.fc1.weight"), "blocks.1.mlp"),
    "tanh GELU": (tanh_gelu, "blocks.0.mlp"),
    "epsilon of PyTorch": (epsilon(1e-5), "blocks.0.norm1"),
    "epsilon of transformers": (epsilon(1e-12), "blocks.0.norm1"),
    "epsilon of a later block": (epsilon(1e-3, first_block=1), "blocks.1.norm1"),
    "last normalisation": (one_weight("norm.bias"), "norm"),
    "class head": (one_weight("head.weight"), "head"),
    "distillation head": (one_weight("head_dist.bias"), "head_dist"),
    "swapped heads": (swap_heads, "head"),
}


@pytest.mark.parametrize("against", ["timm", "official"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_right_layer_is_named(subject, images, ours, mutation, against):
    mutate, layer = MUTATIONS[mutation]
    other = build_torch_side(subject, against)
    assert compare_activations(ours, other, images, 1e-5).first is None
    mutate(other.model)
    assert compare_activations(ours, other, images, 1e-5).first.layer == layer


def test_epsilon_in_the_configuration_of_transformers(subject, images, ours):
    other = build_torch_side(subject, "transformers")
    for module in other.model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6
            module.eps = 1e-12
    assert compare_activations(ours, other, images, 1e-5).first.layer == "blocks.0.norm1"


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("blocks.1.mlp.fc2.weight", "blocks.1.mlp"),
        ("blocks.0.norm1.bias", "blocks.0.attn"),
        ("cls_token", "tokens"),
        ("head_dist.bias", "head_dist"),
    ],
)
def test_a_wrong_gradient_is_named(subject, images, parameter, layer, gradients):
    other = build_torch_side(subject, "official")
    dict(other.model.named_parameters())[parameter].register_hook(lambda grad: 1.001 * grad)
    labels, layers = labels_for(subject, len(images)), layer_names(subject)
    section = compare_gradients(gradients, other, images, labels, layers, 1e-4)
    wrong = [row for row in section.rows if not section.agrees(row)]
    assert [row.layer for row in wrong] == [layer]
    assert len(wrong[0].detail.split(".")) == len(parameter.split("."))


@pytest.fixture(scope="module")
def gradients(subject, images):
    return our_gradients(subject, images, labels_for(subject, len(images)))


def test_weights_that_do_not_fit_are_refused(subject):
    params = copy.deepcopy(subject.params)
    params["blocks"]["0"]["mlp"]["fc1"]["bias"] = np.zeros(7, np.float32)
    del params["norm"]["bias"]
    broken = replace(subject, tensors=to_foreign(params, {}, "official"))
    with pytest.raises(ValueError, match=r"tensors 1 missing \(norm.bias\); 1 of another shape"):
        build_torch_side(broken, "official")
