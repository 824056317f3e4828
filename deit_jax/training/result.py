"""What a finished run says about itself: `result.json`."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deit_jax.evaluation.evaluate import Metrics
from deit_jax.models.functional import Tree, count_parameters
from deit_jax.training.setup import Setup
from deit_jax.training.state import TrainState
from deit_jax.version import __version__


def digest(tree: Tree) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays: equal only if every bit is."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def best_evaluation(workdir: str | Path, metric: str) -> dict[str, Any]:
    """Return step and value of the latest evaluation with the highest `metric`.

    The latest of equals, as checkpoint retention has it: that one is still there.
    """
    best: dict[str, Any] = {"step": 0, "metric": metric, "value": -1.0}
    for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        value = row.get(metric)
        if row["split"] == "eval" and isinstance(value, float) and value >= best["value"]:
            best |= {"step": row["step"], "value": value}
    return best


def make_result(
    setup: Setup,
    state: TrainState,
    evaluation: dict[str, Metrics],
    *,
    seconds: float,
    best: dict[str, Any],
) -> dict[str, Any]:
    """Return the contents of `result.json`; accuracies in percent, all JSON types."""
    config = setup.config
    return {
        "model": config.model.name,
        "parameters": count_parameters(state["params"]),
        "seed": config.seed,
        "steps": int(state["step"]),
        "epochs": int(state["step"]) / setup.steps_per_epoch,
        "seconds": seconds,
        "skipped_steps": int(state["skipped"]),
        "digest": digest({name: state[name] for name in ("params", "batch_stats", "ema")}),
        "distillation": {**config.distillation, "token": setup.has_distillation_head},
        "teacher": setup.teacher.facts if setup.teacher else None,
        "data": {
            "source": setup.train_source.name,
            "train_images": len(setup.train_source),
            "eval_images": len(setup.eval_source),
        },
        "evaluation": evaluation,
        "best": best,
        "versions": {
            "deit_jax": __version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
        },
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
