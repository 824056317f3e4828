"""Weights of one model in another: classes, resolution, distillation token, and what is refused."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.trees import flatten, nest, overlay
from deit_jax.weights.fit import Grids, fit
from deit_jax.weights.position_embeddings import resize_positions
from deit_jax.weights.report import LoadReport, Row
from tests.weights.small_models import DISTILLED, PLAIN

DEEPER_PATCHES = "deit_micro_patch2_16"


def shapes(name, **options):
    return abstract(model_builder(name, **options))[1:]


def loaded(name, **options):
    generator = np.random.default_rng(0)
    return tuple(
        nest(
            {
                p: generator.standard_normal(s.shape).astype(np.float32)
                for p, s in flatten(t).items()
            }
        )
        for t in shapes(name, **options)
    )


def fates(fitted):
    """Names of the arrays that are not simply used, by what became of them."""
    found = {}
    for row in fitted.report.rows:
        if row.fate != "used":
            found.setdefault(row.fate, set()).add(row.name)
    return found


def test_the_same_model_takes_every_array_as_it_is():
    weights = loaded(DISTILLED)
    fitted = fit(weights, shapes(DISTILLED))
    assert flatten(fitted.params).keys() == flatten(weights[0]).keys()
    for path, array in flatten(fitted.params).items():
        np.testing.assert_array_equal(array, flatten(weights[0])[path])
    assert fates(fitted) == {} and fitted.report.warning == ""
    assert fitted.report.count("used") == len(flatten(weights[0]))


def test_half_types_are_widened_exactly():
    params, batch_stats = loaded(PLAIN)
    for kind in (ml_dtypes.bfloat16, np.float16):
        narrow = nest({path: a.astype(kind) for path, a in flatten(params).items()})
        fitted = fit((narrow, batch_stats), shapes(PLAIN))
        for path, array in flatten(fitted.params).items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, flatten(narrow)[path].astype(np.float32))


@pytest.mark.parametrize("rule", ["reference", "timm"])
def test_another_resolution_resizes_the_position_embeddings_only(rule):
    weights = loaded(DISTILLED)
    target = shapes(DISTILLED, image_size=(24, 40))
    fitted = fit(weights, target, Grids((4, 4), (6, 10), rule))
    expected = resize_positions(weights[0]["pos_embed"], (4, 4), (6, 10), rule=rule)
    np.testing.assert_array_equal(fitted.params["pos_embed"], expected)
    assert fates(fitted) == {"resized": {"pos_embed"}}
    assert any(row.note == f"4x4 to 6x10 patches, as {rule}" for row in fitted.report.rows)


def test_as_many_patches_in_another_arrangement_are_resized_too():
    weights = loaded(PLAIN, image_size=(8, 32))
    fitted = fit(weights, shapes(PLAIN, image_size=(32, 8)), Grids((2, 8), (8, 2)))
    expected = resize_positions(weights[0]["pos_embed"], (2, 8), (8, 2))
    np.testing.assert_array_equal(fitted.params["pos_embed"], expected)
    assert fates(fitted) == {"resized": {"pos_embed"}}


def test_other_classes_leave_the_heads_alone_and_say_so_loudly():
    fitted = fit(loaded(DISTILLED), shapes(DISTILLED, num_classes=7))
    heads = {f"{head}.{leaf}" for head in ("head", "head_dist") for leaf in ("kernel", "bias")}
    assert fates(fitted) == {"re-initialised": heads}
    assert not {"head", "head_dist"} & fitted.params.keys()
    warning = fitted.report.warning
    assert "4 arrays were NOT loaded" in warning and "head_dist.kernel" in warning
    assert "10 classes in the weights, 7 in the model" in warning
    assert warning in fitted.report.table()


def test_a_convnets_head_is_a_head_too():
    fitted = fit(loaded("regnety_micro"), shapes("regnety_micro", num_classes=3))
    assert fates(fitted) == {"re-initialised": {"head.fc.kernel", "head.fc.bias"}}
    assert flatten(fitted.batch_stats).keys() == flatten(shapes("regnety_micro")[1]).keys()


def test_a_plain_model_starts_a_distilled_one():
    weights = loaded(PLAIN)
    fitted = fit(weights, shapes(DISTILLED))
    fresh = {"dist_token", "head_dist.kernel", "head_dist.bias"}
    assert fates(fitted) == {"re-initialised": fresh}
    positions, before = fitted.params["pos_embed"], weights[0]["pos_embed"]
    # The new token gets the class token's position embedding; all others keep theirs.
    np.testing.assert_array_equal(positions[:, [0, *range(2, 18)]], before)
    np.testing.assert_array_equal(positions[:, 1], before[:, 0])


def test_a_plain_model_starts_a_distilled_one_at_another_resolution():
    weights = loaded(PLAIN)
    fitted = fit(weights, shapes(DISTILLED, image_size=(24, 24)), Grids((4, 4), (6, 6)))
    expected = resize_positions(weights[0]["pos_embed"], (4, 4), (6, 6))
    np.testing.assert_array_equal(np.delete(fitted.params["pos_embed"], 1, axis=1), expected)


def test_a_distilled_model_leaves_its_token_over_in_a_plain_one():
    weights = loaded(DISTILLED)
    fitted = fit(weights, shapes(PLAIN))
    assert fates(fitted) == {"left over": {"dist_token", "head_dist.kernel", "head_dist.bias"}}
    expected = np.delete(weights[0]["pos_embed"], 1, axis=1)
    np.testing.assert_array_equal(fitted.params["pos_embed"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop(("norm", "scale")), r"1 arrays: norm.scale is missing"),
        (lambda flat: flat.pop(("head", "bias")), r"head.bias is missing"),
        (lambda flat: flat.update({("blocks", "3", "x"): np.ones(2)}), "blocks.3.x is in the wei"),
        (
            lambda flat: flat.update({("blocks", "1", "norm1", "bias"): np.ones(65)}),
            r"blocks.1.norm1.bias is \(65,\) in the weights, \(64,\) in the model",
        ),
        (
            lambda flat: flat.update({("pos_embed",): np.ones((1, 17, 32))}),
            r"pos_embed is \(1, 17, 32\) in the weights",
        ),
        (lambda flat: flat.update({("pos_embed",): np.ones((1, 13, 64))}), "12 patches, which are"),
        # In the file's order; as a set they would come in another one at every run.
        (
            lambda flat: flat.update({("x", c): np.ones(2) for c in "gfedcba"}),
            r"7 arrays: x.g is in the weights only; x.f is .*; x.e is .*;",
        ),
        # Quantised numbers mean something else, and half of a complex one would be lost.
        (
            lambda flat: flat.update({("norm", "scale"): np.ones(64, np.int8)}),
            "norm.scale is int8 in the weights; only floating-point",
        ),
        (
            lambda flat: flat.update({("norm", "scale"): np.ones(64, np.complex64)}),
            "norm.scale is complex64",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    params, batch_stats = loaded(PLAIN)
    flat = flatten(params)
    change(flat)
    with pytest.raises(ValueError, match=message):
        fit((nest(flat), batch_stats), shapes(PLAIN), source="somewhere")


def test_another_patch_size_is_no_difference_of_resolution():
    with pytest.raises(ValueError, match=r"patch_embed.proj.kernel is \(4, 4, 3, 64\)"):
        fit(loaded(PLAIN), shapes(DEEPER_PATCHES))


def test_of_many_that_do_not_fit_three_are_named_and_the_others_counted():
    paths = set(flatten(shapes(DISTILLED)[0])) - {("norm", "scale")}
    # Heads that are missing begin afresh.
    missing = {path for path in paths if not path[0].startswith("head")}
    few = {("norm", "scale"): np.ones(64, np.float32)}
    with pytest.raises(ValueError) as caught:
        fit((nest(few), {}), shapes(DISTILLED))
    words = str(caught.value)
    assert f"in {len(missing)} arrays: " in words
    assert words.endswith(f"; and {len(missing) - 3} more.") and words.count("; ") == 3


def test_overlay_keeps_what_is_not_replaced():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert overlay(base, {"a": {"c": 5}}) == {"a": {"b": 1, "c": 5}, "d": 3}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_table_has_a_line_for_every_special_array_and_one_for_each_module():
    pairs = itertools.product(range(2), range(10, 12))
    rows = [
        Row("blocks.0.norm1.scale", (8,), "used"),
        Row("blocks.0.norm1.bias", (8,), "used"),
        Row("cls_token", (1, 1, 8), "used"),
        Row("pos_embed", (1, 5, 8), "resized", "why"),
        Row("counter", (), "left over", "not part of it"),
        *(Row(f"norm{n}.{m}.batches", (), "left over", "not part of it") for n, m in pairs),
    ]
    lines = LoadReport("a.pth", tuple(rows), ("A note.",)).table().splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[3:8]] == [
        ["blocks.*", "2 arrays", "used", ""],
        ["cls_token", "1x1x8", "used", ""],
        ["pos_embed", "1x5x8", "resized", "why"],
        ["counter", "scalar", "left over", "not part of it"],
        ["norm*.*.batches", "4 arrays", "left over", "not part of it"],
    ]
    assert lines[0] == "Weights of a.pth:" and lines[8:] == ["A note."]
