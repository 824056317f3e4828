"""One prediction from the class head and the distillation head."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def fuse(
    class_logits: Float[Array, "batch classes"],
    distill_logits: Float[Array, "batch classes"] | None,
    rule: str = "mean_logits",
) -> Float[Array, "batch classes"]:
    """Combine both heads' logits; with one head, return its logits.

    Args:
        class_logits: of the class head.
        distill_logits: of the distillation head, or None.
        rule: `mean_logits` is what the reference implementation computes and what all published
            accuracies of distilled models use. `sum_softmax` is what the paper's section 4 says
            (add both softmax outputs); it returns the logarithm of their mean, so that ranking and
            cross-entropy are those of the averaged probabilities. The two may rank differently.

    Raises:
        ValueError: the rule is neither.
    """
    if rule not in ("mean_logits", "sum_softmax"):
        raise ValueError(f"No fusion rule {rule!r}; choose 'mean_logits' or 'sum_softmax'.")
    if distill_logits is None:
        return class_logits
    if rule == "mean_logits":
        return (class_logits + distill_logits) / 2
    both = jnp.stack([class_logits, distill_logits])
    return jax.nn.logsumexp(jax.nn.log_softmax(both), axis=0) - jnp.log(2.0)
