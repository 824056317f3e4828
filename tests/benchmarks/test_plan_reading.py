"""Reading a compiled program: what its kernels compute, move and are for, and what crosses."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.planning.classes import classify
from benchmarks.planning.collectives import Collective, list_collectives
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


FLOW = """\
HloModule flow

%body (p: (s32[], f32[100,8], f32[8])) -> (s32[], f32[100,8], f32[8]) {
  %p = (s32[], f32[100,8]{1,0}, f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %all = f32[100,8]{1,0} get-tuple-element(%p), index=1
  %row = f32[8]{0} get-tuple-element(%p), index=2
  %taken = f32[8]{0} fusion(%all, %i), kind=kLoop, calls=%take
  %put = f32[100,8]{1,0} fusion(%all, %taken, %i), kind=kLoop, calls=%put_back
  ROOT %next = (s32[], f32[100,8]{1,0}, f32[8]{0}) tuple(%i, %put, %taken)
}

%take (all.1: f32[100,8], i.1: s32[]) -> f32[8] {
  %all.1 = f32[100,8]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,8]{1,0} dynamic-slice(%all.1, %i.1, %zero), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%one)
}

%put_back (all.2: f32[100,8], row.2: f32[8], i.2: s32[]) -> f32[100,8] {
  %all.2 = f32[100,8]{1,0} parameter(0)
  %row.2 = f32[8]{0} parameter(1)
  %i.2 = s32[] parameter(2)
  %wide = f32[1,8]{1,0} bitcast(%row.2)
  %zero.2 = s32[] constant(0)
  ROOT %changed = f32[100,8]{1,0} dynamic-update-slice(%all.2, %wide, %i.2, %zero.2)
}

%small (a.3: f32[8]) -> f32[8] {
  %a.3 = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%a.3)
}

%large (a.4: f32[8]) -> f32[8] {
  %a.4 = f32[8]{0} parameter(0)
  %e = f32[8]{0} exponential(%a.4)
  ROOT %m = f32[8]{0} negate(%e)
}

ENTRY %main (t: (s32[], f32[100,8], f32[8]), c: s32[], a: f32[8]) -> f32[8] {
  %t = (s32[], f32[100,8]{1,0}, f32[8]{0}) parameter(0)
  %c = s32[] parameter(1)
  %a = f32[8]{0} parameter(2)
  %known = (s32[], f32[100,8]{1,0}, f32[8]{0}) while(%t), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"7"},"known_init_step":{"init":"0","step":"1"}}
  %open = (s32[], f32[100,8]{1,0}, f32[8]{0}) while(%known), condition=%cond, body=%body
  %start = (f32[8]{0}, f32[64]{0}) all-gather-start(%a), dimensions={0}
  %done = f32[64]{0} all-gather-done(%start)
  %table = f32[100,8]{1,0} get-tuple-element(%open), index=1
  %fetch = ((f32[100,8]{1,0}), f32[25,8]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%table), \
slice={[0:25], [0:8]}
  %fetched = f32[25,8]{1,0:T(8,128)S(1)} slice-done(%fetch)
  ROOT %choice = f32[8]{0} conditional(%c, %a, %a), branch_computations={%small, %large}
}
"""


def test_loops_branches_and_slices():
    walked = read_kernels(read_module(FLOW))
    assert walked.open_loops == 1
    found = [(kernel.name, kernel.launches, kernel.bytes) for kernel in walked.kernels]
    # A row of 8 is read and written, with the index of it; the table of 100 stays where it is.
    row = 4 * 8
    assert found == [
        ("taken", 7, 2 * row + 4),
        ("put", 7, 2 * row + 4),
        ("taken", 1, 2 * row + 4),
        ("put", 1, 2 * row + 4),
        ("start", 1, row + 8 * row),
        ("fetch", 1, 25 * row),
        ("e", 1, 2 * row),
        ("m", 1, 2 * row),
    ]


CHIP = """\
HloModule chip

%tenfold (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %loop = f32[8]{0} while(%p), condition=%cond, body=%step, \
backend_config={"known_trip_count":{"n":"10"}}
}

%step (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %small = f32[8]{0} negate(%q)
}

%once (r: f32[8]) -> f32[16] {
  %r = f32[8]{0} parameter(0)
  ROOT %wide = f32[16]{0} concatenate(%r, %r), dimensions={0}
}

%both (s: f32[100], t: f32[100], i: s32[]) -> f32[100] {
  %s = f32[100]{0} parameter(0)
  %t = f32[100]{0} parameter(1)
  %i = s32[] parameter(2)
  %one = f32[1]{0} dynamic-slice(%s, %i), dynamic_slice_sizes={1}
  %wider = f32[100]{0} broadcast(%one), dimensions={}
  ROOT %sum = f32[100]{0} add(%wider, %t)
}

ENTRY %main (a: f32[100], b: f32[8], c: s32[]) -> f32[100] {
  %a = f32[100]{0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %c = s32[] parameter(2)
  %fetch = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%a)
  %fetched = f32[100]{0:S(1)} copy-done(%fetch)
  %store = (f32[100]{0}, f32[100]{0:S(1)}, u32[]{:S(2)}) copy-start(%fetched)
  %stored = f32[100]{0} copy-done(%store)
  %move = (f32[100]{0}, f32[100]{0}, u32[]) copy-start(%a)
  %moved = f32[100]{0} copy-done(%move)
  %choice = f32[8]{0} conditional(%c, %b, %b), branch_computations={%once, %tenfold}
  ROOT %twice = f32[100]{0} fusion(%a, %a, %c), kind=kLoop, calls=%both
}
"""


def test_each_byte_of_main_memory_is_counted_once():
    """On its way onto the chip an array is read, on its way back written, elsewhere both."""
    found = {kernel.name: (kernel.launches, kernel.bytes) for kernel in kernels(CHIP)}
    assert found == {
        **{"fetch": (1, 400), "store": (1, 400), "move": (1, 800)},
        # A branch of small kernels that run ten times moves more than a large one that runs once.
        "small": (10, 2 * 4 * 8),
        # A slice of an array, all of the same array, an index; and the result.
        "twice": (1, 4 + 400 + 4 + 400),
    }


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


def test_what_crosses_between_devices(eight_devices):
    """A mean crosses as a sum of one number, images that all devices ask for as a whole batch."""
    rows = NamedSharding(eight_devices, PartitionSpec("data"))
    everywhere = NamedSharding(eight_devices, PartitionSpec())
    batch = jax.ShapeDtypeStruct((64, 32), np.float32, sharding=rows)

    def crossing(function, out):
        jitted = jax.jit(function, in_shardings=rows, out_shardings=out)
        found = kernels(jitted.lower(batch).compile().as_text())
        return list_collectives(found, 64)

    (mean,) = crossing(lambda x: jnp.mean(x**2), everywhere)
    assert mean == Collective("all-reduce", 1, 1, 4, False, "f32[]")
    (gather,) = crossing(lambda x: jnp.sin(x), everywhere)
    assert gather == Collective("all-gather", 1, 1, 64 * 32 * 4, True, "f32[64,32]")
    assert crossing(lambda x: x + 1, rows) == []


BEGUN = """\
HloModule begun, entry_computation_layout={(f32[8]{0}, f32[2]{0})->f32[8]{0}}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

ENTRY %main (a: f32[8], b: f32[2]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[2]{0} parameter(1)
  %told = ((f32[8]{0}), f32[8]{0}) all-reduce-start(%a), to_apply=%sum
  %told_done = f32[8]{0} all-reduce-done(%told)
  %two = (f32[8]{0}, f32[2]{0}) all-reduce-start(%a, %b), to_apply=%sum
  %two_done = (f32[8]{0}, f32[2]{0}) all-reduce-done(%two)
  %sent = (f32[2]{0}, f32[2]{0}, u32[], u32[]) collective-permute-start(%b), \
source_target_pairs={{0,1}}
  %sent_done = f32[2]{0} collective-permute-done(%sent)
  %one = u32[] constant(1)
  ROOT %counted = u32[] all-reduce(%one), to_apply=%sum
}
"""


def test_an_exchange_is_its_results_however_it_is_written():
    """Of one that is begun a program may name operands and flags as well, or results alone."""
    found = list_collectives(kernels(BEGUN), 64)
    assert found == [
        Collective("all-reduce", 1, 2, 4 * (8 + 2), False, "f32[8]"),
        Collective("all-reduce", 1, 1, 4 * 8, False, "f32[8]"),
        Collective("collective-permute", 1, 1, 4 * 2, False, "f32[2]"),
        Collective("all-reduce", 1, 1, 4, False, "u32[]"),
    ]
    # Read and written once each.
    assert [kernel.bytes for kernel in kernels(BEGUN)] == [64, 80, 16, 8]


def test_nothing_else_is_counted():
    text = jax.jit(lambda x: jnp.sin(x) + x).lower(jnp.ones(8)).as_text(dialect="hlo")
    module = read_module(text)
    within = module.computations[module.entry]
    assert {count_operations(part, within) for part in within.values()} == {(0, "")}
    with pytest.raises(ValueError, match="no entry computation"):
        read_module("HloModule nothing")
