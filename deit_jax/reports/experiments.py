"""Runs sorted into experiments: those that differ in nothing but the seed are one."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from deit_jax.config.keys import leaves_by_key
from deit_jax.runs.history import MEASURED_HEADS, RunRecord

Key = Mapping[str, str]
"""What decides the outcome of an experiment, by dotted configuration name."""

_Item = TypeVar("_Item")

# May differ between the runs of one experiment: it names or paces things, no more.
_FREE = (
    "seed",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "evaluation.every_epochs",
    "teacher.labels",
    "teacher.weights",
)
_FREE_GROUPS = ("log.", "checkpoint.")
_TEACHER_GROUPS = ("teacher.", "distillation.")
_FINISHED = "finished"
_SHOWN_ELSEWHERE = (_FINISHED, "model.name")
_MAX_DIFFERENCES = 3


class Spread(NamedTuple):
    """Mean and sample standard deviation over runs; the latter is None for a single run."""

    mean: float
    deviation: float | None


def spread(values: Iterable[float]) -> Spread:
    """Return mean and sample standard deviation (divided by n - 1) of at least one value."""
    values = list(values)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Experiment:
    """One row of the table and one curve of the picture.

    Attributes:
        label: what was done, told apart from other experiments with the same model.
        runs: its runs, which differ in the seed.
        accuracies: for each run, top-1 in percent by head.
    """

    label: str
    runs: tuple[RunRecord, ...]
    accuracies: tuple[Mapping[str, float], ...]

    @property
    def first(self) -> RunRecord:
        """A run to ask for what all have in common."""
        return self.runs[0]

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.first.config["model"]["name"]

    @property
    def architecture(self) -> str:
        """Name of the model, with or without a distillation token the same."""
        return self.model.replace("_distilled", "")

    @property
    def finished(self) -> bool:
        """Whether the runs have a result; unfinished ones are never mixed with finished ones."""
        return self.first.result is not None

    @property
    def heads(self) -> dict[str, Spread]:
        """Top-1 in percent over the runs, by head."""
        return {
            head: spread(row[head] for row in self.accuracies)
            for head in MEASURED_HEADS
            if head in self.accuracies[0]
        }

    @property
    def inference(self) -> Spread:
        """Top-1 in percent of the head, or both together, that the model answers with."""
        return self.heads[self.first.inference_head]

    @property
    def epochs(self) -> float:
        """Epochs trained; of unfinished runs, at the last evaluation of the one furthest behind."""
        return min(run.epochs for run in self.runs)

    @property
    def seconds(self) -> Spread | None:
        """Duration over the runs, where they are finished."""
        results = [run.result for run in self.runs if run.result]
        return spread(result["seconds"] for result in results) if results else None


def taught(run: RunRecord) -> bool:
    """Return whether the run had a teacher."""
    return run.config["distillation"]["kind"] != "none"


def method(run: RunRecord) -> str:
    """Name the supervision in the words of the paper (section 4)."""
    kind = run.config["distillation"]["kind"]
    token = "distillation token" if run.has_token else "class token"
    if kind == "none":
        return "no distillation" + (f", {token}" if run.has_token else "")
    return f"{kind}, {token}"


def experiment_key(run: RunRecord, teacher: RunRecord | None = None) -> Key:
    """Return what is equal for all runs of one experiment, and differs from any other.

    With its run at hand, a teacher counts as the same if it was trained the same way but for the
    seed; otherwise if it has the same path.
    """
    key = {
        name: str(value)
        for name, value in leaves_by_key(run.config).items()
        if name not in _FREE
        and not name.startswith(_FREE_GROUPS)
        and (taught(run) or not name.startswith(_TEACHER_GROUPS))
    }
    key[_FINISHED] = str(run.result is not None)
    if taught(run) and teacher:
        of_teacher = {**experiment_key(teacher)}
        of_teacher.pop(_FINISHED)
        key |= {f"teacher's {name}": value for name, value in of_teacher.items()}
    elif taught(run):
        key["teacher.weights"] = run.config["teacher"]["weights"]
    return key


def group_by_key(items: Sequence[_Item], keys: Sequence[Key]) -> list[tuple[Key, list[_Item]]]:
    """Put items of one key together, in the order in which the keys first appear."""
    groups: dict[frozenset[tuple[str, str]], tuple[Key, list[_Item]]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(frozenset(key.items()), (key, []))[1].append(item)
    return list(groups.values())


def distinct_labels(names: Sequence[str], keys: Sequence[Key]) -> list[str]:
    """Return each name, with the settings that tell it from others of the same name.

    The model is not among them: it is shown beside the label.
    """
    labels = []
    for name, key in zip(names, keys, strict=True):
        rivals = [other for other, n in zip(keys, names, strict=True) if n == name]
        differing = [
            setting
            for setting in key
            if setting not in _SHOWN_ELSEWHERE
            and any(rival.get(setting) != key[setting] for rival in rivals)
        ]
        parts = [f"{setting}={key[setting]}" for setting in differing[:_MAX_DIFFERENCES]]
        parts += ["..."] if len(differing) > _MAX_DIFFERENCES else []
        labels.append(f"{name} ({', '.join(parts)})" if parts else name)
    return labels
