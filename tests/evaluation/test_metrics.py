"""Counts against brute force, whatever the padding and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType

from deit_jax.api import create_model
from deit_jax.evaluation.metrics import count_hits, evaluate, make_eval_step
from deit_jax.models.functional import split

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_counts_equal_sorting():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((64, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 64)
    mask = rng.random(64) < 0.7
    result = count_hits(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask))
    order = np.argsort(-logits, axis=-1, kind="stable")
    assert int(result["top1"]) == sum(order[mask, 0] == labels[mask])
    assert int(result["top5"]) == sum((order[mask, :5] == labels[mask, None]).any(-1))
    assert int(result["images"]) == mask.sum()
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits[mask]), torch.tensor(labels[mask]), reduction="sum"
    )
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-6)


def test_ties_go_to_the_lower_class_and_nan_never_hits():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0]])
    result = count_hits(logits, jnp.array([0, 1, 0]), jnp.array([True, True, True]))
    assert int(result["top1"]) == 1
    assert int(result["top5"]) == 2


def batches(size):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (21, 16, 16, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 21).astype(np.int32)
    for start in range(0, 21, size):
        rows = min(size, 21 - start)
        pad = [(0, size - rows)]
        yield {
            "image": np.pad(images[start : start + rows], pad + [(0, 0)] * 3),
            "label": np.pad(labels[start : start + rows], pad),
            "mask": np.arange(size) < rows,
        }


@pytest.mark.parametrize(("devices", "size"), [(1, 7), (1, 32), (8, 8), (8, 16)])
def test_every_image_counts_once(devices, size):
    model = create_model("deit_micro_distilled_patch4_16")
    function, params, stats = split(model)
    whole = next(batches(21))
    pixels = (whole["image"] / 255 - np.array(MEAN)) / np.array(STD)
    (class_logits, distill_logits), _ = jax.jit(function.head_logits)(
        params, stats, jnp.asarray(pixels, jnp.float32)
    )
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    step = make_eval_step(function, mean=MEAN, std=STD)
    result = evaluate(step, {"raw": (params, stats)}, batches(size), mesh)["raw"]
    assert result.keys() == {"class", "distillation", "fused"}
    heads = {
        "class": class_logits,
        "distillation": distill_logits,
        "fused": (class_logits + distill_logits) / 2,
    }
    for head, logits in heads.items():
        hits = np.argmax(np.asarray(logits), -1) == whole["label"]
        assert result[head]["top1"] == pytest.approx(100 * hits.mean(), abs=1e-9)
        loss = torch.nn.functional.cross_entropy(
            torch.tensor(np.asarray(logits)), torch.tensor(whole["label"]).long()
        )
        # Float32 logits of batches of other sizes.
        np.testing.assert_allclose(result[head]["loss"], loss, rtol=1e-5)


def test_nothing_to_evaluate_is_an_error():
    model = create_model("deit_micro_patch4_16")
    function, params, stats = split(model)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    empty = {**next(batches(8)), "mask": np.zeros(8, bool)}
    step = make_eval_step(function, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="no images"):
        evaluate(step, {"raw": (params, stats)}, [empty], mesh)
