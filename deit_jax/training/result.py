"""What a finished run says about itself: `result.json`."""

import importlib.metadata
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from deit_jax.evaluation.metrics import Metrics
from deit_jax.models.functional import count_parameters
from deit_jax.runs.best import best_first
from deit_jax.runs.fingerprint import digest
from deit_jax.runs.log_lines import read_lines
from deit_jax.training.roll_backs import RollBacks
from deit_jax.training.setup import Setup
from deit_jax.training.state import TrainState
from deit_jax.version import __version__


def best_evaluation(workdir: str | Path, metric: str) -> dict[str, Any]:
    """Return step and value of the best evaluation that the log holds, judged by `metric`."""
    rows = [row for _, row in read_lines(Path(workdir) / "metrics.jsonl") if row["split"] == "eval"]
    scores = {row["step"]: row[metric] for row in rows if row.get(metric) is not None}
    step = next(iter(best_first(scores)), 0)
    return {"step": step, "metric": metric, "value": scores.get(step, -1.0)}


def make_result(
    setup: Setup,
    state: TrainState,
    evaluation: dict[str, Metrics],
    *,
    seconds: float,
    failed_saves: int,
    roll_backs: RollBacks,
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
        "failed_saves": failed_saves,
        **roll_backs.notes(),
        "digest": digest({name: state[name] for name in ("params", "batch_stats", "ema")}),
        "distillation": {**asdict(config.distillation), "token": setup.has_distillation_head},
        "teacher": setup.taught_by,
        "labels": setup.lessons.record if setup.lessons else None,
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
