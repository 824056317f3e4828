"""What a slot computes in other ways: the same numbers as the house, by other kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as private

from benchmarks.slot import correctness, layers_alone, variants
from benchmarks.slot.formulations import FORMULATIONS, formulated
from benchmarks.slot.sizes import SMALL
from benchmarks.slot.tasks import task
from benchmarks.slot.variants import VARIANTS
from benchmarks.timing import Program
from deit_jax.devices import platform
from deit_jax.models import convnet, convolution, cudnn_attention, layer_norm
from deit_jax.models.attention import attend
from deit_jax.models.frozen import freeze
from deit_jax.models.functional import abstract, initialise
from deit_jax.models.registry import model_builder


@pytest.fixture(scope="module")
def house():
    """How gradients are lowered and computed as on a GPU, and what the house's own give."""
    name = "deit_micro_patch4_16"
    params, _ = initialise(model_builder(name), jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    function = abstract(model_builder(name, dtype=jnp.bfloat16))[0]

    def gradients():
        def loss(params):
            return jax.nn.logsumexp(function.head_logits(params, {}, images)[0][0], -1).sum()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cudnn_attention, "on_nvidia", lambda: True)
            patch.setattr(cudnn_attention, "attend_cudnn", attend)
            patch.setattr(layer_norm, "platform", lambda: "gpu")
            return jax.jit(jax.grad(loss)).lower(params)

    def flat(lowered):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(lowered.compile()(params))])

    plain = gradients()
    return gradients, flat, plain, flat(plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal rows", "one projection"])
def test_formulations_compute_what_the_house_computes(name, house):
    """Gradients of a small network in bfloat16."""
    gradients, flat, plain, expected = house
    with formulated([name]):
        changed = gradients()
    assert changed.as_text() != plain.as_text()
    # Eight bits, three blocks.
    assert np.linalg.norm(flat(changed) - expected) / np.linalg.norm(expected) < 2e-2
    assert gradients().as_text() == plain.as_text(), "a patch was left behind"


@pytest.mark.slow
def test_fused_kernels_are_held_against_their_twins(monkeypatch):
    """Interpreted here, and tiny."""
    measure = layers_alone.prepare([], True)
    for part in task("kernels").parts:
        found = measure(part)
        assert found["agrees"] == "yes" and max(found["errors"]) > 0.0
    part, kernel = "product_gelu", layers_alone.FUSED["product_gelu"]
    wrong = kernel._replace(twin=lambda *x: tuple(1.02 * y for y in kernel.twin(*x)))
    monkeypatch.setitem(layers_alone.FUSED, part, wrong)
    assert measure(part)["agrees"] == "no"


@pytest.mark.parametrize("part", ["GELU", "LayerNorm"])
def test_a_layer_alone_gives_its_result_and_all_gradients(part):
    """What is not asked for XLA leaves out, and then it is not timed."""
    result, *gradients = layers_alone._elementwise(part, SMALL)()
    rows, width, _ = layers_alone._rows(SMALL)
    if part == "GELU":
        x = layers_alone._normal((rows, 4 * width), jnp.bfloat16).astype(jnp.float32)
        expected = jax.nn.gelu(x, approximate=False)
        assert [x.shape for x in gradients] == [(rows, 4 * width)]
    else:
        x = layers_alone._normal((rows, width), jnp.float32)
        scale = layers_alone._normal((width,), jnp.float32)
        expected = jax.nn.standardize(x, epsilon=1e-6) * scale + scale
        assert [x.shape for x in gradients] == [(rows, width), (width,)]
    np.testing.assert_allclose(result.astype(jnp.float32), expected, rtol=2**-7, atol=2**-7)


def test_a_variant_that_cannot_be_traced_costs_the_others_nothing(monkeypatch):
    def lower(name, case, depth):
        if name == "B":
            raise TypeError("no such form")
        return lambda: Program(name, 1, lambda: None, lambda: None, True)

    monkeypatch.setattr(variants, "_lower", lower)
    measure = variants.prepare(["A", "B", "C"], True)
    assert "ms a block" in measure("A")
    with pytest.raises(TypeError, match="no such form"):
        measure("B")
    assert "times as fast as A" in measure("C")


@pytest.mark.slow
def test_the_reference_is_traced_for_a_cpu_wherever_the_slot_is(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    told = []

    def compute(function, params, images, labels):
        told.append(platform())
        return function(params, images)

    assert correctness._compare(SMALL, compute)["agrees"] == "yes"
    assert told == ["cpu", "gpu", "gpu", "gpu"]


@pytest.mark.slow
def test_wide_epilogues_are_the_same_network(monkeypatch):
    monkeypatch.setattr(convolution, "platform", lambda: "gpu")
    monkeypatch.setattr(convnet, "platform", lambda: "gpu")
    name = "regnety_micro"
    params, statistics = initialise(model_builder(name), jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    function, folded = freeze(name, params, statistics, dtype=jnp.bfloat16)

    def lowered():
        return jax.jit(lambda p: function.head_logits(p, {}, images)[0][0]).lower(folded)

    plain = lowered()
    with formulated(["wide epilogues"]):
        wide = lowered()
    assert plain.as_text() != wide.as_text()
    expected, found = (low.compile()(folded) for low in (plain, wide))
    assert jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected) < 2e-2


def test_padded_attention_is_cudnns_with_198_tokens(monkeypatch):
    """Traced only: the kernels need a GPU."""
    monkeypatch.setattr(private, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(private, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(private, "is_cuda_compute_capability_equal", lambda _: False)
    x = jax.ShapeDtypeStruct((2 * 197, 128), jnp.bfloat16)

    def text():
        def both(q, k, v):
            out, back = jax.vjp(lambda *x: cudnn_attention.attend_cudnn(*x, 2, 2), q, k, v)
            return out, *back(out)

        return str(jax.make_jaxpr(both)(x, x, x))

    with formulated(["padded attention"]):
        padded = text()
    assert re.search(r"dot_product_attention_bwd", padded) and "198" in padded
    assert "198" not in text()
    with (
        pytest.raises(ValueError, match="sleep: none of padded attention"),
        formulated(["sleep"]),
    ):
        raise AssertionError
    assert set(FORMULATIONS) >= {n for v in VARIANTS.values() for n in v.formulations}
