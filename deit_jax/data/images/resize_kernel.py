"""Pillow's resampling, vectorised: the same integers in a tenth of the time (needs numba).

Pillow resizes in two passes, first along rows, then along columns, each with weights of 22
fractional bits and a result of 8 bits. Both passes here add up whole rows of an array, which
compilers turn into wide instructions; for the first one the image is therefore transposed, block by
block, and its result transposed back.
"""

import math
from typing import Any, Final

import numba
import numpy as np
from jaxtyping import Int32, Int64, UInt8
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Of the weights, as in Pillow's Resample.c: 32 bits less 8 of the pixel and 2 for overshoot.
_PRECISION: Final = 22
# Rows of the image that the first pass takes at a time: buffers stay in the second-level cache, and
# as this is no power of two their lines do not compete for the same places in the first.
_BLOCK: Final = 320
_TILE: Final = 16
# Bytes of those rows: of images wider than 17,476 pixels fewer are taken at a time.
_BLOCK_BYTES: Final = 16 << 20


def _tile_code(
    typing_context: Any, source: Any, at: Any, stride: Any, target: Any, to: Any, pitch: Any
) -> tuple[Any, Any]:
    """Transpose 16 x 16 bytes of one flat array into another.

    `at` and `to` are the places of their first bytes, `stride` and `pitch` the lengths of rows.
    """
    signature = types.void(source, types.int64, types.int64, target, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), _TILE)

        def rows(number: int) -> list[Any]:
            """Pointers to the 16 rows in the array that is argument `number`."""
            array = context.make_array(signature.args[number])(context, builder, arguments[number])
            places = []
            for row in range(_TILE):
                step = builder.mul(arguments[number + 2], ir.Constant(ir.IntType(64), row))
                place = builder.gep(array.data, [builder.add(arguments[number + 1], step)])
                places.append(builder.bitcast(place, vector.as_pointer()))
            return places

        # Interleaving the first half of the rows with the second rotates the eight bits that
        # number a byte of the tile by one; after four times columns and rows have changed places.
        masks = [
            ir.Constant(
                ir.VectorType(ir.IntType(32), _TILE),
                [start + half for start in range(first, first + 8) for half in (0, _TILE)],
            )
            for first in (0, 8)
        ]
        tile = [builder.load(place, align=1) for place in rows(0)]
        for _ in range(4):
            tile = [
                builder.shuffle_vector(tile[row], tile[row + 8], mask)
                for row in range(8)
                for mask in masks
            ]
        for line, place in zip(tile, rows(3), strict=True):
            builder.store(line, place, align=1)
        return context.get_dummy_value()

    return signature, generate


_transpose_tile: Any = intrinsic(_tile_code)


@numba.njit(nogil=True)
def _transpose(
    source: UInt8[np.ndarray, "rows columns"],
    top: int,
    height: int,
    left: int,
    width: int,
    target: UInt8[np.ndarray, "width_or_more height_or_more"],
) -> None:
    """Write the transpose of a rectangle of `source` to the corner of `target`."""
    if height < _TILE or width < _TILE:
        for i in range(height):
            for j in range(width):
                target[j, i] = source[top + i, left + j]
        return
    flat_source, flat_target = source.reshape(source.size), target.reshape(target.size)
    stride, pitch = source.shape[1], target.shape[1]
    for i in range(0, height, _TILE):
        # The last tile overlaps the one before it where 16 does not divide.
        i = min(i, height - _TILE)
        for j in range(0, width, _TILE):
            j = min(j, width - _TILE)
            at = (top + i) * stride + left + j
            _transpose_tile(flat_source, at, stride, flat_target, j * pitch + i, pitch)


@numba.njit(nogil=True)
def _weight(x: float, cubic: bool) -> float:
    """Return the filter at a distance: Catmull and Rom's cubic (a = -0.5), or the triangle."""
    x = abs(x)
    if not cubic:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@numba.njit(nogil=True)
def _weights(
    size: int, whole: int, first: int, wanted: int, cubic: bool
) -> tuple[Int64[np.ndarray, " wanted"], Int32[np.ndarray, "wanted taps"], int]:
    """Where the pixels that make up each pixel wanted begin, their weights, and how many they are.

    Of `whole` pixels that `size` pixels become, `wanted` ones from `first` on. The number of
    weights is a multiple of four, for the sake of `_combine`: the last ones may be zero.
    """
    scale = size / whole
    # Shrinking widens the filter, which is what suppresses aliasing.
    widening = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * widening
    taps = (math.ceil(support) * 2 + 4) // 4 * 4
    begins = np.zeros(wanted, np.int64)
    weights = np.zeros((wanted, taps), np.int32)
    exact = np.zeros(taps, np.float64)
    most = 0
    for number in range(wanted):
        centre = (first + number + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size) - begin
        total = 0.0
        for tap in range(count):
            exact[tap] = _weight((tap + begin - centre + 0.5) * (1.0 / widening), cubic)
            total += exact[tap]
        for tap in range(count):
            share = exact[tap] / total if total != 0.0 else exact[tap]
            share *= 1 << _PRECISION
            weights[number, tap] = int(share - 0.5) if share < 0 else int(share + 0.5)
        begins[number] = begin
        most = max(most, count)
    return begins, weights, (most + 3) // 4 * 4


@numba.njit(nogil=True)
def _combine(
    source: UInt8[np.ndarray, "lines lanes_or_more"],
    begins: Int64[np.ndarray, " wanted"],
    weights: Int32[np.ndarray, "wanted taps"],
    taps: int,
    channels: int,
    target: UInt8[np.ndarray, "wanted_lines lanes_or_more"],
    lanes: int,
) -> None:
    """Make each line of `target` a weighted sum of lines of `source`, `channels` lines apart.

    `source` has lines enough for all `taps` at the last place; what is in those whose weight is
    zero does not matter.
    """
    half = np.int32(1 << (_PRECISION - 1))
    sums = np.empty(lanes, np.int32)
    for number in range(len(begins)):
        for channel in range(channels):
            place = begins[number] * channels + channel
            line = target[number * channels + channel]
            sums[:] = half
            # Four at a time, so that sums are fetched and stored a quarter as often.
            for tap in range(0, taps, 4):
                a, b = weights[number, tap], weights[number, tap + 1]
                c, d = weights[number, tap + 2], weights[number, tap + 3]
                at = place + tap * channels
                first, second = source[at], source[at + channels]
                third, fourth = source[at + 2 * channels], source[at + 3 * channels]
                for i in range(lanes):
                    sums[i] += (
                        a * np.int32(first[i])
                        + b * np.int32(second[i])
                        + c * np.int32(third[i])
                        + d * np.int32(fourth[i])
                    )
            for i in range(lanes):
                line[i] = min(max(sums[i] >> _PRECISION, 0), 255)


def _resize(
    pixels: UInt8[np.ndarray, "image_height image_width 3"],
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    window: tuple[int, int],
    cubic: bool,
    out: UInt8[np.ndarray, "out_height out_width 3"],
) -> None:
    out_height, line = out.shape[0], out.shape[1] * 3
    image = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    begins, weights, taps = _weights(box[3], size[1], window[1], out.shape[1], cubic)
    down_begins, down_weights, down_taps = _weights(box[2], size[0], window[0], out_height, cubic)
    # Of the box, what the window is made of.
    left, upper = begins[0], down_begins[0]
    width = min(begins[-1] + taps, box[3]) - left
    height = min(down_begins[-1] + down_taps, box[2]) - upper
    begins -= left
    down_begins -= upper
    block = min(_BLOCK, max(_TILE, _BLOCK_BYTES // (width * 3)))
    columns = np.empty(((width + taps) * 3, block), np.uint8)
    narrow = np.empty((line, block), np.uint8)
    rows = np.empty((height + down_taps, line), np.uint8)
    for start in range(0, height, block):
        count = min(block, height - start)
        top = box[0] + upper + start
        _transpose(image, top, count, (box[1] + left) * 3, width * 3, columns)
        _combine(columns, begins, weights, taps, 3, narrow, count)
        _transpose(narrow, 0, line, 0, count, rows[start:])
    _combine(rows, down_begins, down_weights, down_taps, 1, out.reshape(out_height, line), line)


def _compile() -> Any:
    """Compile once for each processor; later processes load the result from numba's cache."""
    signature = types.void(
        types.Array(types.uint8, 3, "C", readonly=True),
        types.UniTuple(types.int64, 4),
        types.UniTuple(types.int64, 2),
        types.UniTuple(types.int64, 2),
        types.boolean,
        types.Array(types.uint8, 3, "C"),
    )
    try:
        return numba.njit(signature, nogil=True, cache=True)(_resize)
    except (RuntimeError, OSError):
        # No directory for the cache can be written, or the disk is full.
        return numba.njit(signature, nogil=True)(_resize)


resize_box = _compile()
"""resize_box(pixels, box, size, window, cubic, out): a window of a box of `pixels` that is resized.

`box` is (top, left, height, width), `size` its (height, width) when resized, and `window` the (top,
left) in that of what goes to `out`. Time and memory are those of what is made, not of the whole.
Both arrays are contiguous; the box lies inside the image. Equal to Pillow's resize of the cut-out
box with BICUBIC, or BILINEAR where `cubic` is false, unless its height is over 100 times its width
and shrinks (Pillow then shrinks the columns first). Runs without the GIL.
"""
