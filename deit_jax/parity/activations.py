"""The forward pass of both sides: every intermediate result, both heads, the fused answer."""

from collections.abc import Callable

import jax
import numpy as np

from deit_jax.parity.layers import Section, layer_difference
from deit_jax.parity.our_model import Images, OurModel
from deit_jax.parity.torch_side import TorchSide
from deit_jax.trees import Tree


def our_activations(subject: OurModel, images: Images) -> dict[str, np.ndarray]:
    """Run our model; return its results by name, in the order of computation.

    The heads' logits come from `head_logits`, as in training and evaluation, where the last block
    computes the prefix tokens alone; "logits" is the fused answer of `model(images)`.
    """
    names, run = _named(subject)
    with jax.default_matmul_precision("highest"):
        values = jax.jit(run)(subject.params, subject.batch_stats, images)
    return dict(zip(names, map(np.asarray, values), strict=True))


def layer_names(subject: OurModel) -> list[str]:
    """Return the names of the results, in the order of computation; nothing is computed."""
    names, run = _named(subject)
    images = jax.ShapeDtypeStruct((1, *subject.module.image_size, 3), np.float32)
    jax.eval_shape(run, subject.params, subject.batch_stats, images)
    return names


def _named(subject: OurModel) -> tuple[list[str], Callable[..., list[jax.Array]]]:
    """Return a function to trace, and the list that the names of its results will be in.

    (A dict that leaves jit comes back sorted, with block 10 before block 2.)
    """
    names: list[str] = []

    def run(params: Tree, batch_stats: Tree, images: jax.Array) -> list[jax.Array]:
        model = subject.function.merge(params, batch_stats)
        seen = model.activations(images)
        seen["head"], second = model.head_logits(images)
        if second is not None:
            seen["head_dist"] = second
        seen["logits"] = model(images)
        names[:] = seen
        return list(seen.values())

    return names, run


def compare_activations(
    ours: dict[str, np.ndarray], other: TorchSide, images: Images, tolerance: float
) -> Section:
    """Show the other side the same images and compare what each layer answers.

    Args:
        ours: from `our_activations`.
        other: PyTorch's model.
        images: the same.
        tolerance: largest relative difference.
    """
    theirs = other.activations(images, [name for name in ours if name != "logits"])
    rows = (layer_difference(name, ours[name], theirs[name]) for name in ours if name in theirs)
    return Section("activations", tuple(rows), tolerance)
