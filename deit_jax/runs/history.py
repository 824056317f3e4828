"""Run directories as they lie on disk, read without starting JAX; they may still be growing."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deit_jax.runs.log_lines import read_lines
from deit_jax.runs.read import Run, load_run

WeightsKind = Literal["raw", "ema"]
Split = Literal["train", "eval"]

MEASURED_HEADS = ("class", "distillation", "fused")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class RunRecord(Run):
    """What a run directory says, whose `path` is as it was given.

    Attributes:
        rows: the lines of `metrics.jsonl`, the last one of each step and split.
    """

    rows: tuple[dict[str, Any], ...]

    def lines(self, split: Split) -> list[dict[str, Any]]:
        """Return the rows of one split by rising step."""
        return [row for row in self.rows if row["split"] == split]

    @property
    def has_token(self) -> bool:
        """Whether the model has a distillation token, with a head of its own."""
        if self.result:
            return bool(self.result["distillation"]["token"])
        # Starts JAX's import, which finished runs do without.
        from deit_jax.models.registry import find_model

        spec = find_model(self.config["model"]["name"])
        return spec is not None and spec.distilled

    @property
    def inference_head(self) -> str:
        """Name of the head whose accuracy is the model's."""
        return "fused" if self.has_token else "class"

    @property
    def data_name(self) -> str:
        """Short name of the data set."""
        data = self.config["data"]
        if not data["directory"]:
            return data["source"]
        path = Path(data["directory"]).absolute()
        # Maybe the folder of a version that TensorFlow Datasets prepared: name/1.2.3.
        versioned = data["source"] == "tfds" and _VERSION.fullmatch(path.name)
        return path.parent.name if versioned else path.name

    @property
    def epochs(self) -> float:
        """Epochs trained; of an unfinished run, up to its last evaluation."""
        if self.result:
            return self.result["epochs"]
        return max((row["epoch"] for row in self.lines("eval")), default=0.0)

    def accuracies(self, weights: WeightsKind, *, step: int | None = None) -> dict[str, float]:
        """Return top-1 in percent by head: final ones, or those of the evaluation at `step`.

        An unfinished run gives its last evaluation. The result is empty if there was none.

        Raises:
            ValueError: the run was evaluated, but without a moving average where one is asked for.
        """
        if self.result and step in (None, self.result["steps"]):
            heads = self.result["evaluation"].get(weights, {})
            found = {head: heads.get(head, {}).get("top1") for head in MEASURED_HEADS}
            evaluated = True
        else:
            rows = [row for row in self.lines("eval") if step in (None, row["step"])]
            keys = {head: f"{weights}/{head}/top1" for head in MEASURED_HEADS}
            found = {head: rows[-1].get(key) for head, key in keys.items() if rows}
            evaluated = bool(rows)
        found = {head: top1 for head, top1 in found.items() if top1 is not None}
        if evaluated and not found:
            raise ValueError(
                f"{self.path} has no accuracies of its {weights} weights"
                + (" (ema.decay was 0); use --weights raw." if weights == "ema" else ".")
            )
        return found


def read_run(directory: str | Path) -> RunRecord:
    """Read a run directory.

    Raises:
        FileNotFoundError: there is no such directory.
        ValueError: it is not a run directory, or a file in it is damaged.
    """
    path = Path(directory)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no run directory {path}.")
    if not (path / "config.json").is_file():
        inside = sorted(file.parent.name for file in path.glob("*/config.json"))
        hint = (
            f"it contains runs, so give those: {path}/{inside[0]} ..."
            if inside
            else "give the --workdir of a train.py command."
        )
        raise ValueError(f"{path} is no run directory (it has no config.json); {hint}")
    run = load_run(path)
    rows = tuple(_read_rows(path / "metrics.jsonl"))
    return RunRecord(path, run.config, run.result, run.record, run.class_names, rows)


def read_runs(directories: Iterable[str | Path]) -> list[RunRecord]:
    """Read several run directories, each once even if it is named twice."""
    unique = {Path(directory).resolve(): directory for directory in directories}
    return [read_run(directory) for directory in unique.values()]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; of each step and split the last line counts."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for _, row in read_lines(path, needs=("epoch",)):
        rows[row["step"], row["split"]] = row
    return sorted(rows.values(), key=lambda row: row["step"])
