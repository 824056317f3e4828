"""Two submodels of one network that teach each other (co-sub, arXiv 2212.04884)."""

import jax

from deit_jax.schema.learning import TrainingOptions
from deit_jax.training.label_losses import (
    Logits,
    Losses,
    binary_cross_entropy,
    cross_entropy,
    label_criterion,
)


def cosub_loss(first: Logits, second: Logits, targets: Logits, options: TrainingOptions) -> Losses:
    """Labels and each other: the loss of two submodels of one network, each term with weight 1/4.

    Total: (L(Z_1, y) + L(Z_2, y) + C(Z_1, Z_2) + C(Z_2, Z_1)) / 4, where C(Z, Z') takes what Z'
    predicts for a target and is no function of Z' to differentiation. C is the cross-entropy of
    softmax distributions, or of one sigmoid for each class where L is binary.

    Source: Touvron et al., arXiv 2212.04884, section 3; the reference's engine.py, which always has
    the binary one.

    Args:
        first: logits of a submodel.
        second: of the other, on the same images.
        targets: label distribution of every image.
        options: `config.training`.
    """
    criterion = label_criterion(options)
    taught = cross_entropy if options.loss == "cross_entropy" else binary_cross_entropy
    answer = jax.nn.softmax if options.loss == "cross_entropy" else jax.nn.sigmoid
    label = (criterion(first, targets) + criterion(second, targets)) / 2
    one, other = (answer(jax.lax.stop_gradient(logits)) for logits in (first, second))
    mutual = (taught(first, other) + taught(second, one)) / 2
    return Losses((label + mutual) / 2, label, mutual)
