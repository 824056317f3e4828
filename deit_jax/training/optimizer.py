"""The optimisers, on optax.

An optimiser returns a direction; the train step multiplies it by the learning rate of its own
step count, so that a skipped step moves neither the moments nor the schedule out of place.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from deit_jax.schema.learning import OptimizerOptions
from deit_jax.training.layer_decay import scale_by_layer
from deit_jax.trees import Tree

_NOT_DECAYED = {
    # The reference decays the distillation token (confirmed as intended by its author).
    "reference": ("pos_embed", "cls_token"),
    "timm": ("pos_embed", "cls_token", "dist_token"),
}


def decay_mask(params: Tree, rule: str = "reference") -> Tree:
    """Tree of booleans: which parameters weight decay acts on.

    Vectors (biases, normalisation) never; of the rest all but what `rule` spares.
    """

    def decayed(path: tuple, leaf: Float[Array, "..."]) -> bool:
        return leaf.ndim > 1 and path[-1].key not in _NOT_DECAYED[rule]

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(
    options: OptimizerOptions, params: Tree, trained: Tree | None = None
) -> optax.GradientTransformation:
    """Return the transformation from gradients to a direction of descent.

    Args:
        options: `config.optimizer`.
        params: parameters or their shapes; decides about layers.
        trained: tree of booleans, from `freezing.trainable`; None trains everything. What is not
            trained has direction zero and no state.
    """
    optimizer = _direction(options)
    if trained is not None and not all(jax.tree.leaves(trained)):
        labels = jax.tree.map(lambda train: "trained" if train else "frozen", trained)
        optimizer = optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
    if options.layer_decay == 1.0:
        return optimizer
    return optax.chain(optimizer, scale_by_layer(params, options.layer_decay))


def _direction(options: OptimizerOptions) -> optax.GradientTransformation:
    mask = partial(decay_mask, rule=options.no_decay)
    decay = optax.add_decayed_weights(options.weight_decay, mask=mask)
    adam = optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps)
    if options.name == "adamw":
        # Decoupled decay: added to Adam's direction, as torch.optim.AdamW does.
        return optax.chain(adam, decay)
    if options.name == "sgd":
        # Coupled decay, as timm's "sgd" (with Nesterov's momentum) and "momentum" (without).
        return optax.chain(decay, optax.trace(decay=options.momentum, nesterov=options.nesterov))
    # As Apex's FusedLAMB and timm's Lamb: only what is decayed gets a trust ratio.
    return optax.chain(adam, decay, optax.masked(optax.scale_by_trust_ratio(), mask))


def clip_by_global_norm(grads: Tree, max_norm: float) -> tuple[Tree, Float[Array, ""]]:
    """Scale gradients down to a global norm of at most `max_norm` (0: leave them).

    Returns them with the norm before clipping. The 1e-6 is PyTorch's (`clip_grad_norm_`).
    """
    norm = optax.global_norm(grads)
    if not max_norm:
        return grads, norm
    factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return jax.tree.map(lambda grad: grad * factor, grads), norm
