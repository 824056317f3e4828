"""Which parameters are trained; the others keep every bit and have no optimiser state.

What `training.parts` may be:
all: everything.
attention: attention layers, position embedding and heads (Touvron et al., arXiv 2203.09795,
    section 4; the reference's --attn-only, which leaves the distillation head out).
heads: the classifiers alone, on features that do not change (linear probe).
"""

import jax
from jaxtyping import Array, Float

from deit_jax.models.registry import is_head
from deit_jax.schema import Config
from deit_jax.training.losses import heads_read
from deit_jax.trees import Tree


def trainable(params: Tree, config: Config) -> Tree:
    """Return a tree of booleans: which parameters the configuration trains.

    Raises:
        ValueError: the model has no parameter of the chosen part beside its heads.
    """
    parts = config.training.parts
    if parts == "attention" and "pos_embed" not in params:
        raise ValueError(
            f"training.parts is 'attention' but {config.model.name} has none; "
            "choose 'all' or 'heads'."
        )
    # A head that the loss does not read has no gradient; PyTorch does not even decay it.
    idle = heads_read(config, distilled="head_dist" in params) == "class"

    def trained(path: tuple, leaf: Float[Array, "..."]) -> bool:
        names = tuple(part.key for part in path)
        if names[0] == "head_dist" and idle:
            return False
        if parts == "all" or is_head(names):
            return True
        return parts == "attention" and (names[0] == "pos_embed" or "attn" in names)

    return jax.tree_util.tree_map_with_path(trained, params)


def stop_gradients(params: Tree, trained: Tree) -> Tree:
    """Return `params`, constants to differentiation where they are not trained."""
    return jax.tree.map(
        lambda leaf, train: leaf if train else jax.lax.stop_gradient(leaf), params, trained
    )
