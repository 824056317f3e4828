"""Optimisers against PyTorch and timm."""

import importlib

import jax
import numpy as np
import optax
import pytest
import torch
from timm.optim import Lamb

from deit_jax.config.defaults import default_config
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.training.learning_rate import peak_learning_rate
from deit_jax.training.optimizer import clip_by_global_norm, decay_mask, make_optimizer


def tree():
    rng = np.random.default_rng(0)
    return {
        "pos_embed": rng.standard_normal((1, 3, 4)).astype(np.float32),
        "head": {
            "kernel": rng.standard_normal((4, 5)).astype(np.float32),
            "bias": rng.standard_normal(5).astype(np.float32),
        },
    }


def oracle(name, groups):
    betas = {"betas": (0.8, 0.99), "eps": 1e-6}
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=1e-2, **betas)
    if name == "lamb":
        return Lamb(groups, lr=1e-2, max_grad_norm=None, **betas)
    return torch.optim.SGD(groups, lr=1e-2, momentum=0.8, nesterov=name == "nesterov")


@pytest.mark.parametrize("name", ["adamw", "nesterov", "momentum", "lamb"])
def test_updates_equal_pytorch(name):
    config = default_config().optimizer
    config.update(name="sgd" if name in ("nesterov", "momentum") else name, weight_decay=0.3)
    config.update(nesterov=name == "nesterov", momentum=0.8, b1=0.8, b2=0.99, eps=1e-6)
    params = tree()
    leaves, structure = jax.tree.flatten(params)
    variables = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
    decayed = jax.tree.leaves(decay_mask(params))
    groups = [
        {"params": [v], "weight_decay": 0.3 * d} for v, d in zip(variables, decayed, strict=True)
    ]
    reference = oracle(name, groups)
    optimizer = make_optimizer(config, params)
    state = optimizer.init(params)
    for step in range(10):
        rng = np.random.default_rng(step)
        grads = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
        for variable, grad in zip(variables, grads, strict=True):
            variable.grad = torch.tensor(grad)
        reference.step()
        direction, state = optimizer.update(jax.tree.unflatten(structure, grads), state, params)
        params = jax.tree.map(lambda p, d: p - 1e-2 * d, params, direction)
    for ours, theirs in zip(jax.tree.leaves(params), variables, strict=True):
        # Ten float32 updates of size 1e-2 on values of size 1.
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-6)


def test_decay_mask_is_the_reference_rule():
    _, params, _ = abstract(model_builder("deit_micro_distilled_patch4_16"))
    reference, timm = decay_mask(params), decay_mask(params, "timm")
    assert reference["dist_token"] and not timm["dist_token"]
    for mask in (reference, timm):
        assert not mask["cls_token"] and not mask["pos_embed"]
        assert mask["head"]["kernel"] and not mask["head"]["bias"]
        assert mask["patch_embed"]["proj"]["kernel"]
        assert not mask["blocks"]["0"]["norm1"]["scale"]


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_equals_pytorch(max_norm):
    grads = tree()
    variables = [torch.zeros(leaf.shape, requires_grad=True) for leaf in jax.tree.leaves(grads)]
    for variable, grad in zip(variables, jax.tree.leaves(grads), strict=True):
        variable.grad = torch.tensor(grad)
    expected_norm = torch.nn.utils.clip_grad_norm_(variables, max_norm)
    clipped, norm = clip_by_global_norm(grads, max_norm)
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(clipped), variables, strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-6)


def test_no_clipping_by_default():
    grads = tree()
    clipped, norm = clip_by_global_norm(grads, 0.0)
    assert clipped is grads
    np.testing.assert_allclose(norm, optax.global_norm(grads))


def test_teacher_recipe_scales_with_the_batch():
    config = importlib.import_module("configs.teacher").get_config("regnety_040")
    # 0.1 per 128 images (RegNet paper).
    assert peak_learning_rate(config) == pytest.approx(0.1 * 1024 / 128)
