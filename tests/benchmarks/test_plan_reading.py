"""Reading a compiled program: what its kernels compute and what they are for."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.planning.classes import classify
from benchmarks.planning.hlo import read_module, read_shapes
from benchmarks.planning.kernels import Origin, read_kernels
from benchmarks.planning.operations import count_operations
from deit_jax.models.block import Block


def operations(function, *arguments):
    """Of a program before it is optimised: as it was written, on any machine."""
    text = jax.jit(function).lower(*arguments).as_text(dialect="hlo")
    return sum(kernel.operations for kernel in read_kernels(read_module(text)).kernels)


def kernels(text):
    return read_kernels(read_module(text)).kernels


def test_shapes():
    text = "(f32[2,3]{1,0}, /*index=1*/bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s4[3], pred[], u8[0])"
    shapes = read_shapes(text)
    assert [shape.dimensions for shape in shapes] == [(2, 3), (8, 128), (3,), (), (0,)]
    # Layouts with S(1) are on the chip; four bits are half a byte.
    assert [shape.bytes for shape in shapes] == [24, 0, 2, 1, 0]


def test_products_of_batches():
    x, y = jnp.ones((5, 7, 3)), jnp.ones((5, 3, 11))
    assert operations(jnp.matmul, x, y) == 2 * 5 * 7 * 3 * 11


@pytest.mark.parametrize(
    "options",
    [
        dict(window_strides=(1, 1), padding="SAME"),
        dict(window_strides=(2, 3), padding=((1, 2), (0, 3))),
        dict(window_strides=(1, 1), padding=((2, 2), (1, 1)), lhs_dilation=(3, 2)),
        dict(window_strides=(1, 2), padding="VALID", rhs_dilation=(2, 1)),
        dict(window_strides=(2, 2), padding="SAME", feature_group_count=2),
    ],
)
def test_convolutions_count_what_meets_a_pixel(options):
    """Of ones, the sum of a convolution is the number of its multiplications."""
    groups = options.get("feature_group_count", 1)
    images, kernel = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))

    def convolve(images, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, dimension_numbers=names, **options)

    assert operations(convolve, images, kernel) == 2 * int(convolve(images, kernel).sum())


def test_gradients_of_a_convolution_cost_what_it_costs():
    images, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))

    def convolve(images, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=names
        ).sum()

    forward = operations(convolve, images, kernel)
    both = operations(jax.grad(convolve, (0, 1)), images, kernel)
    assert both == 2 * forward


LIBRARY = """\
HloModule library

ENTRY %main (q: bf16[2,10,3,8], k: bf16[2,12,3,8], x: f32[4,6], w: f32[6,5]) -> f32[4,5] {
  %q = bf16[2,10,3,8]{3,2,1,0} parameter(0)
  %k = bf16[2,12,3,8]{3,2,1,0} parameter(1)
  %x = f32[4,6]{1,0} parameter(2)
  %w = f32[6,5]{1,0} parameter(3)
  %f = (bf16[2,3,10,8]{3,1,2,0}, f32[2,3,10]{2,1,0}, u8[0]{0}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmax", operand_layout_constraints={bf16[2,10,3,8]{3,2,1,0}}
  %b = (bf16[2,3,10,8]{3,1,2,0}, bf16[2,3,12,8]{3,1,2,0}, u8[64]{0}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %t = (f32[4,6]{1,0}, f32[2,6]{1,0}) custom-call(%x, %x, %w), \
custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/pallas_call"}, \
backend_config={grid_x = 12 : i32, serialized_metadata = "{\\22kernel\\22: \
\\22product_gelu\\22, \\22operations\\22: \\22960\\22}"}
  ROOT %g = (f32[4,5]{1,0}, s8[4096]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"beta":0, \
"dot_dimension_numbers":{"lhs_contracting_dimensions": ["1"],"rhs_contracting_dimensions":["0"]}}}
}
"""


def test_calls_of_libraries():
    forward, backward, ours, product = kernels(LIBRARY)
    # Two products of 10 x 12 x 8 for each of 2 images and 3 heads; five in the backward pass.
    assert forward.operations == 2 * 2 * (2 * 3 * 10 * 12 * 8) and forward.dtype == "bf16"
    assert backward.operations == 5 * 2 * (2 * 3 * 10 * 12 * 8)
    assert product.operations == 2 * 4 * 6 * 5 and product.dtype == "f32"
    # A kernel of ours says its operations itself; it reads an operand once, and writes its results.
    assert ours.operations == 960 and ours.dtype == "f32"
    assert ours.kind == "product_gelu" and classify(ours, 1.0, 0.0) == "products"
    assert ours.bytes == 4 * (4 * 6 + 6 * 5) + 4 * (4 * 6 + 2 * 6)
    # The workspace is not moved.
    assert product.bytes == 4 * (4 * 6 + 6 * 5 + 4 * 5)
    assert {classify(kernel, 1.0, 0.0) for kernel in (forward, backward)} == {"attention"}


def test_where_an_instruction_is_from():
    def inner(x):
        return jnp.tanh(x)

    def outer(x):
        return inner(x) + 1

    module = read_module(jax.jit(outer).lower(jnp.ones(8)).compile().as_text())
    parts = [part for body in module.computations.values() for part in body.values()]
    (tanh,) = [part for part in parts if part.opcode == "tanh"]
    functions = [re.sub(r".*<locals>\.", "", name) for name in module.functions(tanh)]
    assert functions[:2] == ["inner", "outer"]
    assert module.functions(tanh)[0].startswith("benchmarks/test_plan_reading.py:")


@pytest.mark.slow
def test_a_block_is_sorted_by_what_its_kernels_are_for():
    block = Block(16, 2, drop_rate=0.0, drop_path_rate=0.1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    structure, params = nnx.split(block)
    keys = jax.random.split(jax.random.key(0), 4)

    def loss(params, x):
        return nnx.merge(structure, params)(x, 5, 5, keys=keys).sum()

    x = jnp.ones((20, 16))

    def classes(function):
        text = jax.jit(function).lower(params, x).compile().as_text()
        return {classify(kernel, 1.0, 0.0) for kernel in kernels(text)}

    forward, both = classes(loss), classes(jax.grad(loss, (0, 1)))
    shared = {"products", "attention", "LayerNorm forward", "GELU forward"}
    assert shared <= forward and shared <= both
    assert not any("backward" in name for name in forward)
    assert {"LayerNorm backward", "GELU backward"} <= both
    assert classify(kernels(LIBRARY)[2], 1e-9, 1e-6) == "products"


def test_weights_joined_for_the_optimiser_are_its_own():
    """Whatever the function around the layer: GELU's gradient is found by that of the encoder."""
    around = "models/attention.py:Attention.mix", "fused/encoder.py:encode"
    joined = Origin(around, True), Origin(("training/ema.py:update_ema",), False)
    kernel = kernels(LIBRARY)[0]
    kernel = replace(kernel, kind="fusion", operations=0, origins=frozenset(joined))
    assert classify(kernel, 1.0, 0.0) == "optimiser, norm, EMA"
    alone = replace(kernel, origins=frozenset({Origin(around[1:], True)}))
    assert classify(alone, 1.0, 0.0) == "GELU backward"


def test_nothing_else_is_counted():
    text = jax.jit(lambda x: jnp.sin(x) + x).lower(jnp.ones(8)).as_text(dialect="hlo")
    module = read_module(text)
    within = module.computations[module.entry]
    assert {count_operations(part, within) for part in within.values()} == {(0, "")}
    with pytest.raises(ValueError, match="no entry computation"):
        read_module("HloModule nothing")
