"""How often models and heads answer differently (paper, Table 4)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deit_jax.evaluation.metrics import UNREAD, Answers


class Disagreement(NamedTuple):
    """Fractions of images that two classifiers answer differently.

    Attributes:
        names: of the classifiers.
        fractions: symmetric, zero on the diagonal.
        images: that were compared.
    """

    names: tuple[str, ...]
    fractions: Float[np.ndarray, "names names"]
    images: int


def disagreement(answers: Mapping[str, Answers]) -> Disagreement:
    """Compare every pair, on the images that all of them have an answer for.

    Args:
        answers: by name, each for the same images in the same order; the labels may be among them.

    Raises:
        ValueError: they are for different numbers of images, or there is none to compare.
    """
    counts = {name: len(values) for name, values in answers.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"Answers for different images cannot be compared: {counts}.")
    table = np.stack(list(answers.values()))
    table = table[:, (table != UNREAD).all(axis=0)]
    if not table.size:
        raise ValueError("There is no image that all models have an answer for.")
    fractions = np.stack([(table != row).mean(axis=1) for row in table])
    return Disagreement(tuple(answers), fractions, table.shape[1])
