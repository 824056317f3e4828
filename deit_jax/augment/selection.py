"""Work on those images of a batch that need it, and on no others.

Every operation concerns a few images of a batch, but which ones is only known at run time. Shapes
stay static: a loop takes the selected images, and only the number of rounds depends on the data.
Nothing is allocated for images that are left alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from deit_jax.devices import platform

SelectedRows = Shaped[Array, "rows ..."]

ROUND = 64
"""Images taken at once on an accelerator."""


def update_selected(
    images: Shaped[Array, "batch ..."],
    selected: Bool[Array, " batch"],
    function: Callable[..., SelectedRows],
    *parameters: Shaped[Array, "batch ..."],
) -> Shaped[Array, "batch ..."]:
    """Replace the selected rows by `function(rows, *parameters of those rows)`.

    `function` must treat each row by itself: how many rows it is given at once depends on the
    platform. A CPU takes one image at a time, which fits its cache; accelerators take many.
    """
    if platform() == "cpu":
        return one_by_one(images, selected, function, *parameters)
    return in_rounds(images, selected, function, *parameters, rows=ROUND)


def one_by_one(
    images: Shaped[Array, "batch ..."],
    selected: Bool[Array, " batch"],
    function: Callable[..., SelectedRows],
    *parameters: Shaped[Array, "batch ..."],
) -> Shaped[Array, "batch ..."]:
    """Look at each image, and call `function` where it is selected."""

    def look(row: Array, images: Array) -> Array:
        taken = [jax.lax.dynamic_slice_in_dim(values, row, 1) for values in (images, *parameters)]

        # The branch is a computation of its own: the look-up of the parameters is not repeated
        # for each pixel, as it would be if the compiler fused it into the function.
        def change(images: Array, taken: list[Array]) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(images, function(*taken), row, 0)

        def keep(images: Array, _: list[Array]) -> Array:
            return images

        return jax.lax.cond(selected[row], change, keep, images, taken)

    return jax.lax.fori_loop(0, images.shape[0], look, images)


def in_rounds(
    images: Shaped[Array, "batch ..."],
    selected: Bool[Array, " batch"],
    function: Callable[..., SelectedRows],
    *parameters: Shaped[Array, "batch ..."],
    rows: int,
) -> Shaped[Array, "batch ..."]:
    """Gather the selected images `rows` at a time, and scatter what becomes of them.

    The last round is filled up with other rows, whose results are dropped.
    """
    batch = images.shape[0]
    rows = min(batch, rows)
    count = jnp.sum(selected)
    order = jnp.where(jnp.arange(batch) < count, jnp.argsort(~selected, stable=True), batch)
    order = jnp.concatenate([order, jnp.full(-batch % rows, batch, order.dtype)])

    def round_of(number: Array, images: Array) -> Array:
        at = jax.lax.dynamic_slice_in_dim(order, number * rows, rows)
        present = jnp.minimum(at, batch - 1)
        changed = function(*(values[present] for values in (images, *parameters)))
        return images.at[at].set(changed, mode="drop", unique_indices=True)

    return jax.lax.fori_loop(0, (count + rows - 1) // rows, round_of, images)
