"""What a run says of itself when it goes on: lost lines of its log, epochs that have moved."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deit_jax.runs.checkpoints.directory import best_of, read_manifests
from deit_jax.training.result import best_evaluation

_LOG = logging.getLogger("deit_jax")


def count_lost_lines(meta: Mapping[str, Any], there: int, log: Path) -> int:
    """Return how many lines a log has lost, and say so where they are newly missed.

    Args:
        meta: notes of the checkpoint that is gone on from; {} at a start.
        there: lines up to its step that the log has.
        log: its path.
    """
    lost = max(0, meta.get("log_lines", 0) - there)
    if lost:
        _LOG.warning(
            "%s has lost %d of its first %d lines. Training does not depend on them; curves lack "
            "them, and the best evaluation is that of the others and of the checkpoints that are "
            "there.",
            log,
            lost,
            meta["log_lines"],
        )
    return lost + meta.get("lost_lines", 0)


def best_of_run(workdir: Path, metric: str, lost_lines: int) -> dict[str, Any]:
    """Return step and value of the best evaluation: of the log, and of checkpoints if need be.

    Args:
        workdir: of the run.
        metric: name in the log of what checkpoints are chosen by.
        lost_lines: how many the log has lost; said in the result if there are any. Checkpoints
            know of their own evaluation, which may be among them.
    """
    best = best_evaluation(workdir, metric)
    if lost_lines:
        saved = best_of(read_manifests(workdir / "checkpoints")[0])
        if saved and saved[1] > best["value"]:
            best |= {"step": saved[0], "value": saved[1]}
        best["lost_lines"] = lost_lines
    return best


def say_if_epochs_moved(meta: Mapping[str, Any], step: int, steps_per_epoch: float) -> None:
    """Say where a run stands, if it is elsewhere than when its checkpoint was saved.

    Args:
        meta: notes of the checkpoint; {} at a start.
        step: of the checkpoint.
        steps_per_epoch: now, with the training images that there are.
    """
    before, now = meta.get("epoch"), step / steps_per_epoch
    if before is not None and before != now:
        _LOG.warning(
            "Step %d was epoch %.2f when it was saved and is epoch %.2f of the training images "
            "that there are now; schedule, length and order of the images follow that.",
            step,
            before,
            now,
        )
