"""The optimiser and its schedule, on optax.

The optimiser returns a direction; the train step multiplies it by the learning rate of its own
step count, so that a skipped step moves neither the moments nor the schedule out of place.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from deit_jax.models.functional import Tree

OPTIMIZERS = ("adamw", "sgd")
NO_DECAY_RULES = ("reference", "timm")
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


def make_optimizer(config: ConfigDict, params: Tree) -> optax.GradientTransformation:
    """Return the transformation from gradients to a direction of descent.

    Args:
        config: `config.optimizer`.
        params: parameters or their shapes; decides what is decayed.
    """
    mask = decay_mask(params, config.no_decay)
    decay = optax.add_decayed_weights(config.weight_decay, mask=mask)
    if config.name == "adamw":
        # Decoupled decay: added to Adam's direction, as torch.optim.AdamW does.
        return optax.chain(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps), decay)
    if config.name == "sgd":
        # Coupled decay and Nesterov momentum, as timm's "sgd".
        return optax.chain(decay, optax.trace(decay=config.momentum, nesterov=True))
    raise ValueError(f"optimizer.name is {config.name!r}; it must be one of {OPTIMIZERS}.")


def clip_by_global_norm(grads: Tree, max_norm: float) -> tuple[Tree, Float[Array, ""]]:
    """Scale gradients down to a global norm of at most `max_norm` (0: leave them).

    Returns them with the norm before clipping. The 1e-6 is PyTorch's (`clip_grad_norm_`).
    """
    norm = optax.global_norm(grads)
    if not max_norm:
        return grads, norm
    factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return jax.tree.map(lambda grad: grad * factor, grads), norm


def peak_learning_rate(config: ConfigDict) -> float:
    """Learning rate after warm-up: per 512 images, times batch / 512 (paper, Table 9)."""
    return config.optimizer.learning_rate * config.training.batch_size / 512


def learning_rate(
    config: ConfigDict, step: Int[Array, ""] | int, steps_per_epoch: float
) -> Float[Array, ""]:
    """Cosine decay with linear warm-up, at every step (reference: timm's CosineLRScheduler).

    Warm-up replaces the first epochs of the cosine; it does not shift it.
    """
    schedule, peak = config.schedule, peak_learning_rate(config)
    epoch = jnp.asarray(step, jnp.float32) / steps_per_epoch
    final = schedule.final_learning_rate
    cosine = final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / schedule.epochs))
    if not schedule.warmup_epochs:
        return cosine
    start = schedule.warmup_learning_rate
    warmup = start + (peak - start) * epoch / schedule.warmup_epochs
    return jnp.where(epoch < schedule.warmup_epochs, warmup, cosine)
