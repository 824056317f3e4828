"""The whole network with fused kernels beside itself without; and where there are none."""

import contextlib
import functools
import logging
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas

from deit_jax.config.defaults import default_config
from deit_jax.models.functional import abstract, initialise
from deit_jax.models.fused import calls
from deit_jax.models.fused.add_norm import add_norm_forward
from deit_jax.models.registry import model_builder
from deit_jax.schema import Config
from deit_jax.sharding import batch_split_over, create_mesh, place, split_over_batch
from deit_jax.training.programs import student_builder

HALF = jnp.dtype(jnp.bfloat16)


def h100():
    """Trace inside for a GPU that is not here."""
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@functools.cache
def loss_and_gradient(name, kernels, dtype, interpreted=False, mesh=None):
    """Of random parameters, biases and factors included; with stochastic depth."""
    run, arguments = program(name, kernels, dtype, interpreted, mesh)
    return run(*arguments)


def program(name, kernels, dtype, interpreted=False, mesh=None):
    """What computes it, compiled, and its arguments."""
    options = dict(drop_path_rate=0.5, dtype=dtype, residual_dtype=dtype, fused_kernels=kernels)
    function = abstract(model_builder(name, **options))[0]
    draws = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + jnp.asarray(0.1 * draws.standard_normal(x.shape), jnp.float32),
        initialise(model_builder(name), jax.random.key(0))[0],
    )
    images = jnp.asarray(draws.standard_normal((16, 16, 16, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 16)

    def run(params, images, keys):
        def loss(params):
            (logits, _), _ = function.head_logits(params, {}, images, keys=keys)
            return jnp.square(logits).sum()

        with batch_split_over(mesh):
            return jax.value_and_grad(loss)(params)

    arguments = params, images, keys
    if mesh:
        rows = split_over_batch(mesh)
        arguments = place(params, mesh), jax.device_put(images, rows), jax.device_put(keys, rows)
    with calls.interpreted() if interpreted else contextlib.nullcontext():
        return jax.jit(run).lower(*arguments).compile(), arguments


def distance(found, expected):
    x, y = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (found, expected)
    )
    return np.linalg.norm(x - y) / np.linalg.norm(y)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kernels", "interpreted"),
    [
        ("deit_micro_distilled_patch4_16", "norm", False),
        # LayerScale's factors go into the weights.
        ("deit3_micro_patch4_16", "all", False),
        ("deit_micro_patch4_16", "all", True),
    ],
)
def test_the_same_network(name, kernels, interpreted):
    """In float32, sums in another order."""
    found = loss_and_gradient(name, kernels, jnp.float32, interpreted)
    expected = loss_and_gradient(name, "none", jnp.float32)
    assert abs(found[0] / expected[0] - 1) < 1e-5
    assert distance(found[1], expected[1]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, pytest.param(4, marks=pytest.mark.full)])
def test_on_eight_devices_each_computes_its_own_rows(fsdp, eight_devices):
    name = "deit_micro_patch4_16"
    run, arguments = program(name, "all", jnp.bfloat16, True, create_mesh(fsdp))
    # Sums cross and parts of parameters: nothing of the 16 images, 16 * 17 tokens, a device's 34.
    crossing = re.findall(r" = (.*) (all-[a-z]+|reduce-scatter|collective-[a-z]+)\(", run.as_text())
    moved = [results for results, name in crossing if name != "all-reduce"]
    lengths = {n for shape in re.findall(r"\[([0-9,]+)\]\{", str(moved)) for n in shape.split(",")}
    assert crossing and not lengths & {"16", "272", "34"}
    # XLA gathers the sums of the first normalisation, one row of each device, to add them.
    assert fsdp > 1 or lengths <= {"8", "64"}
    found, expected = run(*arguments), loss_and_gradient(name, "all", jnp.bfloat16, True)
    # Sums in another order, before some are rounded to 8 bits.
    assert abs(found[0] / expected[0] - 1) < 1e-3
    assert distance(found[1], expected[1]) < 4e-3


@pytest.mark.slow
def test_in_bfloat16_it_is_as_near_to_float32_as_without():
    name = "deit_micro_patch4_16"
    exact = loss_and_gradient(name, "none", jnp.float32)
    found, plain = (
        distance(loss_and_gradient(name, kernels, jnp.bfloat16, True)[1], exact[1])
        for kernels in ("all", "none")
    )
    # The one rounds where the other does, or less.
    assert found < 1.2 * plain


def rows_and_weights(width=24):
    return (draw(7, width), draw(7, width), None), draw(width), draw(width), draw(width)


def test_elsewhere_the_twin_is_computed_and_a_line_says_so_once(caplog):
    calls._say_once.cache_clear()
    rows, *weights = rows_and_weights()
    with caplog.at_level(logging.WARNING, "deit_jax"):
        for _ in range(2):
            found = add_norm_forward(rows, *weights, epsilon=1e-6, dtype=HALF)
    expected = add_norm_forward.twin(rows, *weights, epsilon=1e-6, dtype=HALF)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    (record,) = caplog.records
    assert record.message == (
        "The fused kernel add_norm_forward is left to XLA: it is for NVIDIA GPUs of compute "
        "capability 8.0 or higher."
    )


@pytest.mark.parametrize(
    ("width", "dtype", "text"),
    [
        (11, HALF, "a width of 11 has no power of two"),
        (24, jnp.dtype(jnp.float16), "for float32 and bfloat16, not for float16"),
    ],
)
def test_what_a_kernel_is_not_for_is_left_to_its_twin(width, dtype, text, caplog):
    calls._say_once.cache_clear()
    rows, *weights = rows_and_weights(width)
    with calls.interpreted():
        found = add_norm_forward(rows, *weights, epsilon=1e-6, dtype=dtype)
    assert found[1].dtype == dtype
    assert text in caplog.text


def test_a_kernel_that_does_not_compile_is_left_to_its_twin(caplog):
    def refused(rows, *, factor):
        raise NotImplementedError("no such\ninstruction.")

    kernel = calls.Kernel(refused, lambda rows, *, factor: (factor * rows[0],), lambda *_, **__: "")
    numbers = draw(3)
    with h100():
        (found,) = jax.eval_shape(lambda x: kernel((x,), factor=2), numbers)
    assert found.shape == (3,)
    assert (
        "kernel refused is left to XLA: it does not compile here (NotImplementedError: no such "
        "instruction)." in caplog.text
    )


def test_where_jax_has_no_triton_any_more_twins_are_computed(monkeypatch, caplog):
    monkeypatch.delattr(pallas, "triton", raising=False)
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    rows, *weights = rows_and_weights(width=40)
    with h100():
        found = jax.eval_shape(
            lambda *x: add_norm_forward((*x[:2], None), *x[2:], epsilon=1e-6, dtype=HALF),
            *(*rows[:2], *weights),
        )
    assert found[1].dtype == HALF
    assert "kernel add_norm_forward is left to XLA: it does not compile here" in caplog.text


def test_the_configuration_says_which_kernels():
    config = default_config()
    config.model.name = "deit_micro_patch4_16"
    config.model.fused_kernels = "norm"
    model = nnx.eval_shape(lambda: student_builder(Config.of(config))(nnx.Rngs(0)))
    assert model.fused_kernels == "norm" and default_config().model.fused_kernels == "none"


def test_options_that_exclude_each_other():
    for options in ({"remat": True}, {"drop_rate": 0.1}):
        with pytest.raises(ValueError, match="without remat and without dropout"):
            abstract(model_builder("deit_micro_patch4_16", fused_kernels="norm", **options))
