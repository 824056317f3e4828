"""The model card, README.md: what is known of the weights, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from deit_jax.config.keys import leaves_by_key
from deit_jax.evaluation.predict import ANSWERING_ORDER
from deit_jax.export.subject import ExportSubject
from deit_jax.models.functional import count_parameters
from deit_jax.models.registry import model_spec
from deit_jax.preprocessing import in_four_digits
from deit_jax.reports.palette import HEAD_NAMES
from deit_jax.runs.log_lines import read_lines
from deit_jax.runs.open_weights import RunWeights
from deit_jax.runs.read import Run, load_run
from deit_jax.tables import Column, markdown_table

_LIBRARIES = ("timm", "transformers", "onnx")
_RECIPE = (
    "training.batch_size",
    "schedule.epochs",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.per_images",
    "optimizer.weight_decay",
    "training.loss",
    "training.label_smoothing",
    "augment.policy",
    "augment.erasing_probability",
    "mix.mixup_alpha",
    "mix.cutmix_alpha",
    "data.repeats",
    "model.drop_path_rate",
    "ema.decay",
    "seed",
)
_TAUGHT = ("weight", "temperature")


def model_card(subject: ExportSubject, layout: str, title: str, usage: str) -> str:
    """Write the card, in Markdown with the header that Hugging Face's hub reads.

    Args:
        subject: the model.
        layout: format that it is exported to.
        title: of the card.
        usage: how the files are used, in Markdown.
    """
    weights = subject.weights
    family = "deit" if model_spec(weights.model_name).transformer else weights.model_name
    library = [f"library_name: {layout}"] if layout in _LIBRARIES else []
    header = ["---", *library, "pipeline_tag: image-classification", "tags:", f"- {family}"]
    parts = [
        "\n".join([*header, "- deit_jax", "---"]),
        f"# {title}",
        _model(subject),
        usage,
    ]
    if isinstance(weights, RunWeights):
        parts += _run(weights)
    else:
        parts += ["## Where the weights are from", " ".join(weights.notes)]
    return "\n\n".join(parts) + "\n"


def _model(subject: ExportSubject) -> str:
    weights, shown = subject.weights, subject.weights.facts.preprocessing
    (height, width), (tall, wide) = subject.size, shown.view.sides(subject.size)
    rows = [
        ["architecture", weights.model_name],
        ["parameters", f"{count_parameters(subject.trees[0]):,}"],
        ["classes", str(weights.num_classes)],
        [
            "images",
            f"resized to {tall}x{wide} ({shown.view.fit}, {shown.view.interpolation}), "
            f"{height}x{width} cut out of the middle",
        ],
        ["mean, deviation", f"{in_four_digits(shown.mean)}; {in_four_digits(shown.std)}"],
    ]
    named = "" if subject.labels else "\nNothing says what the classes are called.\n"
    note = f"\n{shown.note}\n" if shown.assumed or shown.remark else ""
    return markdown_table([Column("model"), Column("")], rows) + "\n" + named + note


def _run(weights: RunWeights) -> Iterator[str]:
    """Say how a run was trained and how good this checkpoint was."""
    run = load_run(weights.source)
    config, flat = weights.config, leaves_by_key(weights.config)
    yield "## Training"
    images = run.record.get("made_from", {}).get("data", {})
    counts = [
        f"{images[part]['images']:,} images to {verb}"
        for part, verb in (("train", "train"), ("eval", "evaluate"))
        if part in images
    ]
    said = [f"Trained with deit_jax on `{config['data']['source']}` data"]
    said[0] += f" ({', '.join(counts)})." if counts else "."
    if (kind := config["distillation"]["kind"]) != "none":
        taught = ", ".join(f"{key} {config['distillation'][key]}" for key in _TAUGHT)
        said.append(f"Taught by {config['teacher']['name']}: {kind} distillation ({taught}).")
    if start := config["model"]["weights"]:
        said.append(f"Started from other weights ({start.rstrip('/').rpartition('/')[2]}).")
    yield " ".join(said)
    rows = [[f"`{key}`", str(flat[key])] for key in _RECIPE if key in flat]
    yield markdown_table([Column("key"), Column("value")], rows)
    yield _accuracy(weights, run)
    if versions := run.record.get("versions"):
        yield "Versions: " + ", ".join(f"{name} {text}" for name, text in versions.items()) + "."


def _accuracy(weights: RunWeights, run: Run) -> str:
    """Return what the run measured of just these weights."""
    averaged = weights.which == "ema"
    rows = [row for _, row in read_lines(run.path / "metrics.jsonl")]
    found = [row for row in rows if row["split"] == "eval" and row["step"] == weights.step]
    lines = _measured(found[-1], "ema" if averaged else "raw") if found else []
    if not lines:
        return f"These weights (step {weights.step:,}) were not evaluated by the run."
    table = markdown_table([Column("head"), Column("top-1 (%)", True), Column("loss", True)], lines)
    what = "the moving average of the weights" if averaged else "the weights"
    return f"On the evaluation split, {what} at step {weights.step:,}:\n\n{table}"


def _measured(row: Mapping[str, Any], prefix: str) -> list[list[str]]:
    values = {
        head: [row.get(f"{prefix}/{head}/{key}") for key in ("top1", "loss")]
        for head in ANSWERING_ORDER
    }
    return [
        [HEAD_NAMES[head], f"{top1:.2f}", f"{loss:.4f}"]
        for head, (top1, loss) in values.items()
        if top1 is not None and loss is not None
    ]
