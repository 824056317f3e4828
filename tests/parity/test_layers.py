"""Differences of single layers, against closed forms."""

import math

import numpy as np
import pytest

from deit_jax.parity.layers import Difference, Section, by_layer, layer_difference, layer_of


def test_numbers_of_a_difference():
    row = layer_difference("x", np.array([[3.0, 0.0]]), np.array([[4.0, -4.0]]))
    # 12 / (3 sqrt(32)): 45 degrees.
    assert row == ("x", 4.0, 1.0, pytest.approx(math.sqrt(0.5)), 2, "")


def test_zeros_and_what_is_not_finite():
    zero, one = np.zeros(3), np.ones(3)
    assert layer_difference("x", zero, zero)[1:4] == (0.0, 0.0, 1.0)
    assert layer_difference("x", one, zero)[1:4] == (1.0, math.inf, 0.0)
    for ours, theirs in ((np.full(3, np.nan), one), (one, np.full(3, np.inf))):
        section = Section("s", (layer_difference("x", ours, theirs),), 1e9)
        assert section.first is section.worst is section.rows[0]


def test_other_shapes_are_no_comparison():
    with pytest.raises(ValueError, match=r"head has shape \(2,\) here and \(1, 2\)"):
        layer_difference("head", np.zeros(2), np.zeros((1, 2)))


def test_first_and_worst():
    rows = tuple(
        Difference(name, x, 10 * x, 1.0, 1) for name, x in zip("abc", (1, 3, 2), strict=True)
    )
    section = Section("s", rows, 15.0)
    assert (section.first.layer, section.worst.layer) == ("b", "b")
    assert Section("s", rows, 3.0, "maximum").first is None


def test_parameters_go_to_their_layers():
    layers = {"patch_embed", "tokens", "blocks.10.norm1", "blocks.10.attn", "blocks.10", "norm"}
    for path, layer in {
        "pos_embed": "tokens",
        "dist_token": "tokens",
        "patch_embed.proj.kernel": "patch_embed",
        "blocks.10.norm1.scale": "blocks.10.attn",
        "blocks.10.attn.qkv.bias": "blocks.10.attn",
        "norm.bias": "norm",
        "s1.b2.conv1.conv.kernel": "s1",
    }.items():
        assert layer_of(tuple(path.split(".")), layers) == layer


def test_a_layer_is_its_worst_tensor():
    small, large = Difference("", 2.0, 0.1, 1.0, 5), Difference("", 1.0, 0.2, 0.9, 7, "why")
    tensors = {"a.x": ("a", small), "a.y": ("a", large)}
    assert by_layer(tensors) == (Difference("a", 1.0, 0.2, 0.9, 12, "a.y, why"),)
    assert by_layer(tensors, "maximum")[0].detail == "a.x"
