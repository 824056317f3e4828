"""What a layout of names is: where it is known by, and how it calls our modules."""

from collections.abc import Callable
from typing import NamedTuple

from deit_jax.trees import TreePath

Rename = Callable[..., str]
"""From a module of ours, and `depths`, the blocks of each stage, to its foreign name."""

# torchvision numbers the two layers of a pair.
PAIR = {"conv": "0", "bn": "1"}


class Layout(NamedTuple):
    """One project's names for one family.

    A convolution and its BatchNorm are one node here (`conv`, `bn`); others have them side by side.

    Attributes:
        marker: a tensor that every such model has, and no other.
        rename: says what the tensors are called.
    """

    marker: str
    rename: Rename


def same(module: TreePath, depths: tuple[int, ...]) -> str:
    """Return our own name."""
    del depths
    return ".".join(module)
