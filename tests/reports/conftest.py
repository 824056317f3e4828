"""Run directories made up for tests: the formats are real, the numbers are drawn."""

import json
import math

import numpy as np
import pytest

from deit_jax.config.defaults import default_config

EVERY, STEPS, STEPS_PER_EPOCH = 5, 40, 2.0
MODELS = {
    "teacher": "regnety_micro",
    "none": "deit_micro_patch4_16",
    "soft": "deit_micro_distilled_patch4_16",
    "hard": "deit_micro_distilled_patch4_16",
}
HEADS = {"class": 0.0, "distillation": 0.8, "fused": 1.0}


def _top1(final, step, noise):
    return 10 + (final - 10) * (1 - math.exp(-6 * step / STEPS)) + noise


def make_run(
    path,
    what="none",
    *,
    seed=0,
    final=85.0,
    teacher="",
    finished=True,
    ema=True,
    overrides=None,
):
    """Write the directory of a run as small as configs/digits.py has them; return it."""
    path.mkdir(parents=True)
    config = default_config()
    config.seed = seed
    config.data.source = "digits"
    config.model.name = MODELS[what]
    config.distillation.kind = what if what in ("soft", "hard") else "none"
    config.teacher.name = MODELS["teacher"]
    config.teacher.weights = str(teacher)
    config.ema.decay = 0.99 if ema else 0.0
    config.update_from_flattened_dict(overrides or {})
    token = "_distilled" in config.model.name
    rng = np.random.default_rng([seed, len(what), round(final * 100)])
    shift = rng.normal(scale=0.5)
    heads = HEADS if token else {"class": 0.0}
    last = STEPS if finished else STEPS // 2
    lines = []
    for step in range(1, last + 1):
        epoch = step / STEPS_PER_EPOCH
        loss = 2.3 * math.exp(-2 * step / STEPS) + 0.02 * rng.normal()
        lines.append({"step": step, "split": "train", "epoch": epoch, "loss": loss})
        if step % EVERY == 0:
            noise = shift + rng.normal(scale=0.4) * (1 - step / STEPS)
            row = {"step": step, "split": "eval", "epoch": epoch}
            for weights in ("raw", *(["ema"] if ema else [])):
                for head, more in heads.items():
                    better = more + (0.5 if weights == "ema" else 0.0)
                    row[f"{weights}/{head}/top1"] = round(_top1(final, step, noise + better), 3)
                    row[f"{weights}/{head}/top5"] = 99.0
                    row[f"{weights}/{head}/loss"] = 0.5
            lines.append(row)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    if finished:
        result = _result(config, token, lines[-1], teacher, seconds=61.0 + seed)
        (path / "result.json").write_text(json.dumps(result))
    return path


def _result(config, token, row, teacher, seconds):
    evaluation = {}
    for key, value in row.items():
        if "/" in key:
            weights, head, metric = key.split("/")
            evaluation.setdefault(weights, {}).setdefault(head, {})[metric] = value
    taught = config.distillation.kind != "none"
    facts = {"name": config.teacher.name, "weights": str(teacher), "step": STEPS - EVERY}
    return {
        "model": config.model.name,
        "parameters": 1,
        "seed": config.seed,
        "steps": STEPS,
        "epochs": STEPS / STEPS_PER_EPOCH,
        "seconds": seconds,
        "skipped_steps": 0,
        "distillation": {**config.distillation, "token": token},
        "teacher": facts if taught else None,
        "data": {"source": "digits", "train_images": 200, "eval_images": 800},
        "evaluation": evaluation,
    }


@pytest.fixture
def run_directory(tmp_path):
    """Return `make(name, what, ...)`, which makes a run in the test's own directory."""

    def make(name, *arguments, **options):
        return make_run(tmp_path / name, *arguments, **options)

    return make


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A teacher, and students of all kinds from three seeds; paths by name, to be read only."""
    folder = tmp_path_factory.mktemp("study")
    paths = {"teacher": make_run(folder / "teacher", "teacher", final=94.0)}
    finals = {"none": 84.0, "soft": 86.5, "hard": 88.0}
    for what, final in finals.items():
        for seed in range(3):
            teacher = "" if what == "none" else paths["teacher"]
            name = f"{what}{seed}"
            paths[name] = make_run(folder / name, what, seed=seed, final=final, teacher=teacher)
    return paths
