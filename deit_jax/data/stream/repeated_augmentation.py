"""In which row of a batch each image stands, so that copies of an image are mixed apart.

Repeated augmentation (paper, section 6) puts several augmented copies of an image into a batch.
Mixup and CutMix draw once for a group of consecutive rows; copies that shared a group would share
its weight, its coin and its box, and be mixed with each other. The reference's sampler deals the
copies out to processes, each of which mixes its own batch; here they are dealt out to groups.
"""

import numpy as np
from jaxtyping import Int64

Numbers = Int64[np.ndarray, "batch"]


def apart(index: Numbers, group: int) -> Numbers:
    """Order a batch so that no group holds an image twice, as far as that is possible.

    Whole runs of rows are dealt out among as few groups as an image has copies, so that processes
    that hold a few groups still decode each image once. Within a group rows i and group - 1 - i
    are partners (`augment.mixing`). Where a group must hold copies, no two of them are partners
    unless an image fills more than half of it; copies in different groups have different partners.

    Args:
        index: the images of the global batch, in the order of the stream.
        group: how many consecutive rows are mixed with each other; divides the batch.

    Returns:
        The position in `index` that each row of the batch takes.
    """
    groups = len(index) // group
    most = np.unique(index, return_counts=True)[1].max()
    enough = (n for n in range(1, groups) if groups % n == 0 and n >= most)
    dealing = next(enough, groups)
    run = dealing * group
    rows = [start + _deal(index[start : start + run], group) for start in range(0, len(index), run)]
    return np.concatenate(rows)


def _deal(index: Int64[np.ndarray, " run"], group: int) -> Int64[np.ndarray, " run"]:
    """Deal the images of consecutive groups out among them, one by one like cards."""
    groups = len(index) // group
    _, first, image, counts = np.unique(
        index, return_index=True, return_inverse=True, return_counts=True
    )
    # Copies stand in a row; those that two epochs show in one batch do not yet.
    cards = np.argsort(first[image], kind="stable")
    hands = cards.reshape(group, groups).T
    # Copies within a hand are consecutive cards, at most so many.
    together = -(-int(counts.max()) // groups)
    half = group // 2
    rows = np.empty_like(hands)
    for number, hand in enumerate(hands):
        # Turned by 0 or by at least as many as there are copies, no copy meets its like.
        turn = together * (number % max(1, half // together))
        rows[number, : group - half] = [*hand[:half], *hand[2 * half :]]
        rows[number, group - half :] = np.roll(hand[half : 2 * half], -turn)[::-1]
    return rows.ravel()
