"""Fitting loaded weights to a model that differs in classes, resolution or distillation token."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.registry import is_head
from deit_jax.trees import Tree, TreePath, flatten, nest
from deit_jax.weights.position_embeddings import (
    Grid,
    ResizeRule,
    resize_positions,
    square_grid,
)
from deit_jax.weights.report import Fate, LoadReport, Row

_OF_THE_TOKEN = ("dist_token", "head_dist")
_POSITIONS = ("pos_embed",)


@dataclass(frozen=True)
class Grids:
    """Patches along height and width, where known, and how to get from the one to the other."""

    old: Grid | None = None
    new: Grid | None = None
    rule: ResizeRule = "reference"


@dataclass(frozen=True)
class Fitted:
    """Arrays to lay over a freshly initialised model, which keeps what is not among them."""

    params: Tree
    batch_stats: Tree
    report: LoadReport


def fit(
    loaded: tuple[Tree, Tree],
    target: tuple[Tree, Tree],
    grids: Grids = Grids(),
    *,
    source: str = "the weights",
    left_over: Iterable[Row] = (),
    notes: Iterable[str] = (),
) -> Fitted:
    """Fit loaded arrays to the shapes of a model.

    Four differences are bridged, each with a row in the report:

    - another resolution: the position embeddings are interpolated
      (`weights.position_embeddings`);
    - another number of classes, or a backbone without head: the heads keep their fresh
      initialisation;
    - a distillation token on one side only. A plain model's weights start a distilled one: its
      token and second head keep their fresh initialisation, and the token's position embedding
      is the class token's, since neither has a place in the image. In the other direction the
      token, its position embedding and its head are left over.

    Anything else that does not agree is an error.

    Args:
        loaded: parameters and BatchNorm statistics in our names, of any float type.
        target: those of the model, arrays or shapes.
        grids: of the position embeddings. An unknown old one is taken for a square.
        source: where the weights are from, for messages.
        left_over: rows for tensors that were left over before.
        notes: sentences for the report.

    Returns:
        Arrays of the model's types, as far as there are any, and the report.

    Raises:
        ValueError: an array is missing, superfluous or of a shape that cannot be bridged.
    """
    have = flatten(loaded[0]) | flatten(loaded[1])
    want = flatten(target[0]) | flatten(target[1])
    trees = loaded[0], target[0]
    fitted, rows, problems = _fit_each(have, want, trees, grids)
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"The weights of {source} do not fit this model in {len(problems)} arrays: "
            f"{'; '.join(problems[:3])}{more}."
        )
    statistics = {path: fitted.pop(path) for path in flatten(target[1])}
    report = LoadReport(source, (*rows, *left_over), tuple(notes))
    return Fitted(nest(fitted), nest(statistics), report)


def _fit_each(
    have: Mapping[TreePath, Any],
    want: Mapping[TreePath, Any],
    trees: tuple[Tree, Tree],
    grids: Grids,
) -> tuple[dict[TreePath, np.ndarray], list[Row], list[str]]:
    """Return the arrays for the model, a row for each on either side, and what does not agree."""
    rows: list[Row] = []
    problems: list[str] = []
    fitted: dict[TreePath, np.ndarray] = {}
    for path in want:
        try:
            array, row = _fit_one(path, have, want, trees, grids)
        except ValueError as error:
            problems.append(str(error))
            continue
        rows.append(row)
        if array is not None:
            fitted[path] = array.astype(want[path].dtype)
    for path in [path for path in have if path not in want]:
        name = ".".join(path)
        if path[0] in _OF_THE_TOKEN:
            note = "the model has no distillation token"
            rows.append(Row(name, have[path].shape, "left over", note))
        else:
            problems.append(f"{name} is in the weights only")
    return fitted, rows, problems


def _fit_one(
    path: TreePath,
    have: Mapping[TreePath, Any],
    want: Mapping[TreePath, Any],
    trees: tuple[Tree, Tree],
    grids: Grids,
) -> tuple[np.ndarray | None, Row]:
    """Return the array for one place of the model, None to leave it as it is, and its row."""
    name, shape, array = ".".join(path), tuple(want[path].shape), have.get(path)
    if array is None:
        of_the_token = path[0] in _OF_THE_TOKEN and ("cls_token",) in have
        of_no_head = is_head(path) and not any(map(is_head, have))
        if not (of_the_token or of_no_head):
            raise ValueError(f"{name} is missing")
        return None, Row(name, shape, "re-initialised", "there is none in the weights")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} is {array.dtype} in the weights; only floating-point is read")
    if path == _POSITIONS:
        old, new = (VitArchitecture.of(tree).prefix_positions for tree in trees)
        return _fit_positions(array, shape, (old, new), grids)
    if array.shape == shape:
        return array, Row(name, shape, "used")
    if is_head(path) and array.shape[:-1] == shape[:-1]:
        note = f"{array.shape[-1]} classes in the weights, {shape[-1]} in the model"
        return None, Row(name, shape, "re-initialised", note)
    raise ValueError(f"{name} is {array.shape} in the weights, {shape} in the model")


def _fit_positions(
    array: np.ndarray, shape: tuple[int, ...], prefixes: tuple[int, int], grids: Grids
) -> tuple[np.ndarray, Row]:
    """Bring position embeddings to another grid, and to another number of prefix tokens."""
    old_prefix, new_prefix = prefixes
    name, notes = ".".join(_POSITIONS), []
    if array.shape[-1] != shape[-1]:
        raise ValueError(f"{name} is {array.shape} in the weights, {shape} in the model")
    old = grids.old or square_grid(array.shape[1] - old_prefix)
    new = grids.new or square_grid(shape[1] - new_prefix)
    count = array.shape[1] - old_prefix
    fate: Fate = "used"
    if count != shape[1] - new_prefix or (old and new and old != new):
        if old is None or new is None:
            raise ValueError(
                f"{name} is for {count} patches, which are no square; the weights do not say of "
                "what image size they are"
            )
        array = resize_positions(array, old, new, rule=grids.rule)
        fate = "resized"
        notes.append(f"{old[0]}x{old[1]} to {new[0]}x{new[1]} patches, as {grids.rule}")
    if old_prefix < new_prefix:
        array = np.concatenate([array[:, :1], array], axis=1)
        notes.append("the distillation token gets the class token's")
    elif old_prefix > new_prefix:
        array = np.delete(array, 1, axis=1)
        notes.append("the distillation token's is left over")
    return array, Row(name, shape, fate, "; ".join(notes))
