"""Which image stands where in the training stream, and in which row of its batch.

Repeated augmentation (paper, section 6) puts several augmented copies of an image into a batch.
Mixup and CutMix draw once for a group of consecutive rows; copies that shared a group would share
its weight, its coin and its box, and be mixed with each other. The reference's sampler deals the
copies out to processes, each of which mixes its own batch; here they are dealt out to groups.
"""

import functools

import numpy as np
from jaxtyping import Int32, Int64

from deit_jax.data.draws import ORDER, random_order, words

Numbers = Int64[np.ndarray, "batch"]


# A batch may straddle a boundary, and reader threads are a few batches apart: two epochs.
@functools.lru_cache(maxsize=2)
def epoch_order(num_images: int, seed: int, epoch: int) -> Int32[np.ndarray, " num_images"]:
    """Return the order of images in an epoch: a permutation of 0 .. num_images - 1, read-only."""
    order = random_order(words(seed, ORDER, epoch, 0, 0, num_images)).astype(np.int32)
    order.flags.writeable = False
    return order


def locate(
    positions: Int64[np.ndarray, " n"], num_images: int, repeats: int, seed: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return what stands at given positions of the training stream.

    An epoch is exactly `num_images` samples. Without repeats it shows each image once; with
    `repeats` R it shows the first ceil(num_images / R) images of its permutation R times in a
    row (the last of them maybe fewer times), as in repeated augmentation (paper, section 6,
    footnote to table 9: a 300-epoch run sees each image 100 x 3 times).

    Args:
        positions: sample positions, counted from 0 over the whole run.
        num_images: size of the data set.
        repeats: augmented copies of an image that stand side by side; `apart` parts them
            within their batch.
        seed: of the run; not negative.

    Returns:
        (epoch, index, copy): the epoch of each position, the image, and which copy of it.
    """
    epochs, offsets = np.divmod(positions, num_images)
    slots, copies = np.divmod(offsets, repeats)
    indices = np.empty_like(slots)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(num_images, seed, int(epoch))[slots[here]]
    return epochs, indices, copies


def apart(index: Numbers, group: int) -> Numbers:
    """Order a batch so that no group holds an image twice, as far as that is possible.

    Whole runs of rows are dealt out among as few groups as an image has copies, so that processes
    that hold a few groups still decode each image once. Within a group rows i and group - 1 - i
    are partners (`augment.mixup_cutmix`). Where a group must hold copies, no two of them are
    partners unless an image fills more than half of it; copies in different groups have different
    partners.

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
