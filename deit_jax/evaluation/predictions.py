"""One run over a split that keeps what each head answers for each image, beside the metrics."""

from collections.abc import Iterable, Mapping
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Shaped

from deit_jax.augment.normalise import to_input
from deit_jax.evaluation.metrics import Metrics, Sums, Totals, add, averages, by_head, count_hits
from deit_jax.models.functional import ModelFunction
from deit_jax.sharding import put_batch
from deit_jax.trees import Tree

Answers = Int32[np.ndarray, "images"]
"""The class that is answered for each image of a split, `UNREAD` or `NO_CLASS`."""

UNREAD: Final = -1
"""The image was damaged, so that nothing was asked."""

NO_CLASS: Final = -2
"""The logits were not numbers."""


def measure(
    function: ModelFunction,
    arrays: tuple[Tree, Tree],
    batches: Iterable[Mapping[str, Shaped[np.ndarray, "batch ..."]]],
    mesh: Mesh,
    images: int,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    fusion: str = "mean_logits",
    classes: tuple[int, ...] = (),
) -> tuple[Metrics, dict[str, Answers]]:
    """Run over all batches once; return the metrics and the answers of each head.

    Args:
        function: the model.
        arrays: its parameters and BatchNorm statistics.
        batches: from `data.stream.loader.eval_batches`, of one process.
        mesh: devices the batches are split over.
        images: in the split.
        mean: that the pixels are normalised with.
        std: likewise.
        fusion: how both heads are put together.
        classes: the model's class for each class of the labels, () if they are the same. Answers
            are then in the labels' classes, and classes that are not among them are left out.

    Raises:
        ValueError: if there is no image.
    """

    @jax.jit
    def step(
        params: Tree, batch_stats: Tree, batch: Mapping[str, Shaped[Array, "batch ..."]]
    ) -> tuple[Sums, dict[str, Array]]:
        images = to_input(batch["image"], mean, std)
        logits, _ = function.head_logits(params, batch_stats, images)
        heads = by_head(logits, fusion)
        if classes:
            heads = {head: x[:, np.asarray(classes)] for head, x in heads.items()}
        sums = {head: count_hits(x, batch["label"], batch["mask"]) for head, x in heads.items()}
        answers = {
            head: jnp.where(jnp.isnan(x).any(-1), NO_CLASS, jnp.argmax(x, -1)).astype(jnp.int32)
            for head, x in heads.items()
        }
        return sums, {h: jnp.where(batch["mask"], a, UNREAD) for h, a in answers.items()}

    totals: Totals = {}
    rows: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        sums, answers = jax.device_get(step(*arrays, put_batch(batch, mesh)))
        add(totals, sums)
        for head, values in answers.items():
            rows.setdefault(head, []).append(values)
    metrics = averages(totals)
    # Batches are in the order of the split; what is beyond its end fills up the last one. A dict
    # that leaves jit comes back sorted.
    order = [head for head in ("class", "distillation", "fused") if head in rows]
    return (
        {head: metrics[head] for head in order},
        {head: np.concatenate(rows[head])[:images] for head in order},
    )
