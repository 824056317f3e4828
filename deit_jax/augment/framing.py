"""Random crop after padding, and horizontal flip: pure movements of pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8


def pad_and_crop(
    images: UInt8[Array, "batch height width 3"],
    offsets: Int[Array, "batch 2"],
    padding: int,
    mode: str,
) -> UInt8[Array, "batch height width 3"]:
    """Pad every side by `padding` pixels and cut out the original size at (row, column) `offsets`.

    Args:
        images: Images of any size; "reflect" needs sides longer than the padding.
        offsets: 0 to `2 * padding`; `padding` leaves the image where it was.
        padding: Pixels on each side.
        mode: "constant" pads with black, "reflect" mirrors without repeating the border.
    """
    _, height, width, channels = images.shape
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(
            f"crop_padding {padding} cannot be reflected in images of {height} x {width}: "
            "use a smaller padding or crop_mode 'constant'."
        )
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, sides, mode=mode)

    def crop(image: Array, offset: Array) -> Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def flip_selected(
    images: UInt8[Array, "batch height width 3"], selected: Bool[Array, " batch"]
) -> UInt8[Array, "batch height width 3"]:
    """Mirror the selected images left to right."""
    return jnp.where(selected[:, None, None, None], images[:, :, ::-1], images)
