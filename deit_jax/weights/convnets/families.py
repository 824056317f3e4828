"""All tables of names, and by which tensor each is known."""

from deit_jax.weights.convnets import efficientnet, regnet, resnet
from deit_jax.weights.convnets.layout import Layout

FAMILIES: dict[str, dict[str, Layout]] = {
    "regnet": regnet.LAYOUTS,
    "resnet": resnet.LAYOUTS,
    "efficientnet": efficientnet.LAYOUTS,
}
"""Layouts by family and name."""

MARKERS = {
    layout.marker: (family, name)
    for family, layouts in FAMILIES.items()
    for name, layout in reversed(layouts.items())
}
"""Family and layout by marker; of equal ones the first layout."""
