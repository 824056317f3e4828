"""What a report says of an experiment beside its curves: model, data, time, versions, places."""

from collections.abc import Iterator

from deit_jax.reports.experiments import Experiment
from deit_jax.reports.markup import Markup, element
from deit_jax.reports.table3 import duration
from deit_jax.runs.history import RunRecord


def facts(experiment: Experiment) -> Markup:
    """Return a list of names and what is known under them."""
    parts = [
        part
        for name, text in _facts(experiment)
        if text
        for part in (element("dt", name), element("dd", text))
    ]
    return element("dl", *parts)


def _facts(experiment: Experiment) -> Iterator[tuple[str, str]]:
    run = experiment.first
    config, result = run.config, run.result or {}
    size = "\N{MULTIPLICATION SIGN}".join(map(str, config["model"]["image_size"]))
    parameters = result.get("parameters", 0)
    counted = f", {parameters:,} parameters" if parameters > 1 else ""
    yield "model", f"{experiment.model}, {size} pixels{counted}"
    yield "data", _data(run)
    yield "teacher", _teacher(run)
    epochs = f"{experiment.epochs:.4g} epochs"
    steps = f", {result['steps']:,} steps" if result else ""
    yield "training", f"{epochs}{steps}, batches of {config['training']['batch_size']:,} images"
    seconds = experiment.seconds
    yield "time", (f"{duration(seconds.mean)} on {_devices(run)}" if seconds else "")
    best = result.get("best") or {}
    if best.get("step"):
        yield "best", f"{best['value']:.2f} % at step {best['step']:,} ({best['metric']})"
    skipped = sum((one.result or {}).get("skipped_steps", 0) for one in experiment.runs)
    yield "skipped", f"{skipped:,} steps, whose loss or gradient was not finite" if skipped else ""
    back = sum(len((one.result or {}).get("roll_backs", ())) for one in experiment.runs)
    yield "rolled back", f"{back} time(s), for steps that were not finite" if back else ""
    yield "seeds", ", ".join(str(one.config["seed"]) for one in experiment.runs)
    yield "versions", _versions(run)
    yield "runs", ", ".join(str(one.path) for one in experiment.runs)


def _data(run: RunRecord) -> str:
    data = (run.result or {}).get("data")
    if not data:
        return run.data_name
    counts = f"{data['train_images']:,} training and {data['eval_images']:,} evaluation images"
    return f"{counts} of {data.get('source', run.data_name)}"


def _teacher(run: RunRecord) -> str:
    teacher = (run.result or {}).get("teacher")
    if not isinstance(teacher, dict):
        return ""
    top1 = teacher.get("top1")
    reached = f", {top1:.2f} % top-1" if isinstance(top1, float) else ""
    step = f", step {teacher['step']:,}" if isinstance(teacher.get("step"), int) else ""
    return f"{teacher.get('name')} of {teacher.get('weights')}{step}{reached}"


def _devices(run: RunRecord) -> str:
    return str((run.result or {}).get("devices", "devices that are not recorded"))


def _versions(run: RunRecord) -> str:
    versions = run.record.get("versions", {})
    named = [f"{name} {versions[name]}" for name in ("deit_jax", "jax", "flax") if name in versions]
    commit = run.record.get("git_commit", "")
    return ", ".join([*named, *([f"commit {commit[:12]}"] if commit else [])])
