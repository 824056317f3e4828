"""Accuracy and loss that count every image exactly once, for each head and both together."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int32, Shaped

from deit_jax.augment.normalise import to_input
from deit_jax.devices import compiler_options
from deit_jax.models.functional import HeadLogits, ModelFunction
from deit_jax.models.fusion import fuse
from deit_jax.sharding import batch_split_over, platform_of, put_batch
from deit_jax.trees import Tree

Sums = dict[str, dict[str, Shaped[Array, ""]]]
EvalStep = Callable[[Tree, Tree, Mapping[str, Shaped[Array, "batch ..."]]], Sums]
Totals = dict[str, dict[str, float]]
"""Sums over all images by head, before they are divided by their number."""

Metrics = dict[str, dict[str, float]]
"""By head ("class", "distillation", "fused"): "top1" and "top5" in percent, "loss"."""


Answers = Int32[np.ndarray, "images"]
"""The class that is answered for each image of a split, `UNREAD` or `NO_CLASS`."""

UNREAD: Final = -1
"""The image was damaged, so that nothing was asked."""

NO_CLASS: Final = -2
"""The logits were not numbers."""


def count_hits(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], mask: Bool[Array, " batch"]
) -> dict[str, Shaped[Array, ""]]:
    """Hits among the first one and five classes and summed cross-entropy of unmasked images.

    A label's rank is the number of classes with a larger logit, plus those with an equal one
    and a smaller number: ties go to the lower class, as argmax has it. NaN logits never hit.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    lower = jnp.arange(logits.shape[-1]) < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & lower), axis=-1)
    counted = mask & ~jnp.isnan(logits).any(axis=-1)
    loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]
    return {
        "top1": jnp.sum(counted & (rank < 1), dtype=jnp.int32),
        "top5": jnp.sum(counted & (rank < 5), dtype=jnp.int32),
        "loss": jnp.sum(jnp.where(mask, loss, 0.0)),
        "images": jnp.sum(mask, dtype=jnp.int32),
    }


def make_eval_step(
    function: ModelFunction,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    fusion: str = "mean_logits",
    classes: tuple[int, ...] = (),
    answers: bool = False,
    mesh: Mesh | None = None,
    options: dict[str, Any] | None = None,
) -> EvalStep:
    """Return `step(params, batch_stats, batch) -> sums` for batches of `eval_batches`.

    Args:
        function: the model.
        mean: that the pixels are normalised with.
        std: likewise.
        fusion: how both heads are put together.
        classes: the model's class for each class of the labels, () if they are the same. Classes
            that are not among them are left out.
        answers: whether "answers", the class of each image, come with the sums.
        mesh: devices the batches are split over, so that nothing but sums crosses between them;
            None for the default one.
        options: of XLA, see `compiler_options`.
    """

    @partial(jax.jit, compiler_options=options)
    def step(
        params: Tree, batch_stats: Tree, batch: Mapping[str, Shaped[Array, "batch ..."]]
    ) -> Sums:
        images = to_input(batch["image"], mean, std)
        with batch_split_over(mesh):
            logits, _ = function.head_logits(params, batch_stats, images)
        heads = by_head(logits, fusion, classes)
        sums = {head: count_hits(x, batch["label"], batch["mask"]) for head, x in heads.items()}
        if answers:
            for head, x in heads.items():
                sums[head]["answers"] = answers_of(x, batch["mask"])
        return sums

    return step


def by_head(
    logits: HeadLogits, fusion: str, classes: tuple[int, ...] = ()
) -> dict[str, Float[Array, "batch classes"]]:
    """Return the logits of each head, and of both together where there are two.

    Args:
        logits: of the model.
        fusion: how both heads are put together.
        classes: as for `make_eval_step`.
    """
    class_logits, distill_logits = logits
    heads = {"class": class_logits}
    if distill_logits is not None:
        heads["distillation"] = distill_logits
        heads["fused"] = fuse(class_logits, distill_logits, fusion)
    if classes:
        heads = {head: x[:, np.asarray(classes)] for head, x in heads.items()}
    return heads


def answers_of(
    logits: Float[Array, "batch classes"], mask: Bool[Array, " batch"]
) -> Int32[Array, " batch"]:
    """Return the class of the largest logit, `NO_CLASS` or, where the mask is off, `UNREAD`."""
    found = jnp.where(jnp.isnan(logits).any(-1), NO_CLASS, jnp.argmax(logits, -1))
    return jnp.where(mask, found.astype(jnp.int32), UNREAD)


def evaluate(
    step: EvalStep,
    weights: Mapping[str, tuple[Tree, Tree]],
    batches: Iterable[Mapping[str, Shaped[np.ndarray, "batch ..."]]],
    mesh: Mesh,
) -> dict[str, Metrics]:
    """Run over all batches once, with every set of weights.

    Args:
        step: from `make_eval_step`.
        weights: named pairs of (parameters, BatchNorm statistics), for instance "raw" and "ema".
        batches: from `data.stream.loader.eval_batches`.
        mesh: devices the batches are split over.

    Returns:
        For every name of `weights` the metrics of each head.

    Raises:
        ValueError: if there is no image.
    """
    totals: dict[str, Totals] = {name: {} for name in weights}
    for batch in batches:
        placed = put_batch(batch, mesh)
        sums = {name: step(*arrays, placed) for name, arrays in weights.items()}
        for name, heads in jax.device_get(sums).items():
            _add(totals[name], heads)
    return {name: _averages(heads) for name, heads in totals.items()}


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
    step = make_eval_step(
        function,
        mean=mean,
        std=std,
        fusion=fusion,
        classes=classes,
        answers=True,
        mesh=mesh,
        options=compiler_options(platform_of(mesh)),
    )
    totals: Totals = {}
    rows: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        sums = jax.device_get(step(*arrays, put_batch(batch, mesh)))
        for head, values in sums.items():
            rows.setdefault(head, []).append(values.pop("answers"))
        _add(totals, sums)
    metrics = _averages(totals)
    # Batches are in the order of the split; what is beyond its end fills up the last one. A dict
    # that leaves jit comes back sorted.
    order = [head for head in ("class", "distillation", "fused") if head in rows]
    return (
        {head: metrics[head] for head in order},
        {head: np.concatenate(rows[head])[:images] for head in order},
    )


def _add(totals: Totals, sums: Sums) -> None:
    """Add the sums of one batch, fetched from the devices, to those of all before."""
    for head, values in sums.items():
        total = totals.setdefault(head, dict.fromkeys(values, 0.0))
        for key, value in values.items():
            total[key] += value.item()


def _averages(totals: Totals) -> Metrics:
    """Return the metrics of each head. Raises ValueError if there was no image."""
    if not all(total["images"] for total in totals.values()):
        raise ValueError("The evaluation split holds no images.")
    return {
        head: {
            "top1": 100 * total["top1"] / total["images"],
            "top5": 100 * total["top5"] / total["images"],
            "loss": total["loss"] / total["images"],
        }
        for head, total in totals.items()
    }
