"""The backward pass of both sides: the gradient of a training loss for every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Int

from deit_jax.augment.mixup_cutmix import one_hot_targets
from deit_jax.parity.layers import Difference, Section, by_layer, layer_difference, layer_of
from deit_jax.parity.our_model import Images, OurModel
from deit_jax.parity.torch_side import TorchSide
from deit_jax.schema.networks import DistillationOptions
from deit_jax.training.distillation.losses import distillation_loss
from deit_jax.trees import Tree, TreePath, flatten

SMOOTHING = 0.1
Labels = Int[np.ndarray, "batch"]


def labels_for(subject: OurModel, count: int) -> Labels:
    """Return labels for images that have none: the same at every call."""
    classes = subject.module.num_classes
    return np.random.default_rng(1).integers(0, classes, count).astype(np.int64)


def our_gradients(subject: OurModel, images: Images, labels: Labels) -> Tree:
    """Return the gradient of the smoothed cross-entropy, the mean over both heads."""

    def loss(params: Tree) -> jax.Array:
        heads, _ = subject.function.head_logits(params, subject.batch_stats, jnp.asarray(images))
        targets = one_hot_targets(jnp.asarray(labels, jnp.int32), heads[0].shape[-1], SMOOTHING)
        return distillation_loss(*heads, None, targets, DistillationOptions()).total

    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, subject.params))


def torch_gradients(other: TorchSide, images: Images, labels: Labels) -> Tree:
    """Return the same from PyTorch's own cross-entropy."""
    other.model.zero_grad(set_to_none=True)
    targets = torch.from_numpy(labels)
    cross_entropy = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    losses = [cross_entropy(x, targets) for x in other.head_logits(images) if x is not None]
    (sum(losses[1:], losses[0]) / len(losses)).backward()
    return other.gradients()


def compare_gradients(
    ours: Tree,
    other: TorchSide,
    images: Images,
    labels: Labels,
    layers: list[str],
    tolerance: float,
) -> Section:
    """Compare the gradient of every parameter; one row for a layer, of its worst tensor.

    Rows are in the order of the backward pass, so that the first that disagrees is where the
    mistake is made.

    Args:
        ours: from `our_gradients`.
        other: PyTorch's model.
        images: the same.
        labels: the same.
        layers: from `activations.layer_names`.
        tolerance: largest relative difference.
    """
    theirs = torch_gradients(other, images, labels)
    return Section("gradients", gradient_rows(ours, theirs, layers), tolerance)


def gradient_rows(ours: Tree, theirs: Tree, layers: list[str]) -> tuple[Difference, ...]:
    """Compare two trees; one row for a layer, from the heads back to the patches.

    Raises:
        ValueError: one side has a tensor that the other has not.
    """
    pairs = paired(ours, theirs, layers)
    return by_layer(
        {
            ".".join(path): (layer, layer_difference(".".join(path), mine, other))
            for path, (layer, mine, other) in reversed(pairs.items())
        }
    )


def paired(
    ours: Tree, theirs: Tree, layers: list[str]
) -> dict[TreePath, tuple[str, np.ndarray, np.ndarray]]:
    """Return each parameter's layer and both values, in the order of the forward pass."""
    a, b = flatten(ours), flatten(theirs)
    if a.keys() != b.keys():
        odd = sorted(map(".".join, a.keys() ^ b.keys()))
        raise ValueError(f"Only one side has a value for {', '.join(odd[:3])}.")
    places = {name: place for place, name in enumerate(layers)}
    of = {path: layer_of(path, places) for path in a}
    order = sorted(a, key=lambda path: places.get(of[path], 0))
    return {path: (of[path], np.asarray(a[path]), np.asarray(b[path])) for path in order}
