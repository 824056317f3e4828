"""One layer of a policy on a batch of mixed operations: a few passes, grouped by their nature."""

from functools import partial

import jax
from jaxtyping import Array, UInt8

from deit_jax.augment.blending import enhance
from deit_jax.augment.blurring import blur
from deit_jax.augment.choices import Operations
from deit_jax.augment.operations import (
    BLEND_KINDS,
    LINE_KINDS,
    STATISTICS_KINDS,
    TABLE_KINDS,
    Kind,
)
from deit_jax.augment.selection import update_selected
from deit_jax.augment.tables import is_any, look_up, plain_tables, statistics_tables
from deit_jax.augment.warping import warp


def apply_operations(
    images: UInt8[Array, "batch height width 3"],
    operations: Operations,
    possible: frozenset[Kind],
    fill: tuple[int, int, int] = (124, 116, 104),
    interpolation: str = "bicubic",
) -> UInt8[Array, "batch height width 3"]:
    """Apply all layers of operations, rounding to whole levels after each as Pillow does.

    Args:
        images: Images of one size.
        operations: For each layer and image one primitive operation, with its argument.
        possible: The kinds that occur; passes for other kinds are left out of the program.
        fill: Colour of pixels that a geometric operation uncovers, 0 to 255.
        interpolation: Of geometric operations: "bicubic", "bilinear" or "random".
    """

    def layer(images: Array, operation: Operations) -> tuple[Array, None]:
        return _apply_layer(images, operation, possible, fill, interpolation), None

    return jax.lax.scan(layer, images, operations)[0]


def _apply_layer(
    images: UInt8[Array, "batch height width 3"],
    operation: Operations,
    possible: frozenset[Kind],
    fill: tuple[int, int, int],
    interpolation: str,
) -> UInt8[Array, "batch height width 3"]:
    kind, argument = operation.kind, operation.argument

    def present(kinds: tuple[Kind, ...]) -> bool:
        return not possible.isdisjoint(kinds)

    if present(TABLE_KINDS):
        tables = plain_tables(kind, argument)
        if present(STATISTICS_KINDS):
            looks = is_any(kind, STATISTICS_KINDS)
            tables = update_selected(tables, looks, statistics_tables, images, kind, argument)
        images = update_selected(images, is_any(kind, TABLE_KINDS), look_up, tables)
    if present(BLEND_KINDS):
        images = update_selected(images, is_any(kind, BLEND_KINDS), enhance, kind, argument)
    for kinds, along_lines in ((LINE_KINDS, True), ((Kind.ROTATE,), False)):
        if present(kinds):
            moved = partial(warp, fill=fill, interpolation=interpolation, along_lines=along_lines)
            images = update_selected(images, is_any(kind, kinds), moved, *operation)
    if present((Kind.BLUR,)):
        images = update_selected(images, kind == Kind.BLUR, blur, argument)
    return images
