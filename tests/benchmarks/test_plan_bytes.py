"""What of a compiled program's bytes is counted: loops, slices, copies, exchanges; each once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.planning.collectives import Collective, list_collectives
from benchmarks.planning.hlo import read_module
from benchmarks.planning.kernels import read_kernels
from tests.benchmarks.test_plan_reading import kernels

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
