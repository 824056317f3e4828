"""Nested dicts of arrays as flat ones, and one laid over another."""

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]
"""Nested dicts with string keys and arrays (or their shapes) as leaves."""

TreePath = tuple[str, ...]
"""Keys from the root of a tree to an array."""


def flatten(tree: Mapping[str, Any], prefix: TreePath = ()) -> dict[TreePath, Any]:
    """Return the arrays (or shapes) of a tree by path."""
    flat: dict[TreePath, Any] = {}
    for key, value in tree.items():
        path = (*prefix, key)
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def nest(flat: Mapping[TreePath, Any]) -> Tree:
    """Return the tree whose `flatten` this is."""
    tree: Tree = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree


def overlay(base: Tree, above: Tree) -> Tree:
    """Return `base` with the arrays that `above` also has taken from `above`."""
    return nest(flatten(base) | flatten(above))
