"""Which runs are students, which are their teachers, and what all of them reached."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_jax.reports.experiments import (
    Experiment,
    distinct_labels,
    experiment_key,
    group_by_key,
    method,
    taught,
)
from deit_jax.runs.history import RunRecord, WeightsKind, read_run, read_runs

# Order of the rows, that of the paper's Table 3; other methods come last.
_ORDER = (
    "no distillation",
    "soft, class token",
    "hard, class token",
    "soft, distillation token",
    "hard, distillation token",
)


@dataclass(frozen=True)
class Comparison:
    """All that a report shows.

    Attributes:
        teachers: experiments whose runs taught the students, with the accuracy they taught with.
        students: all others, in the order of the paper's Table 3.
        weights: whose accuracies the students' are.
        notes: sentences about what a reader should know of single runs.
    """

    teachers: tuple[Experiment, ...]
    students: tuple[Experiment, ...]
    weights: WeightsKind
    notes: tuple[str, ...]

    @property
    def shown(self) -> tuple[Experiment, ...]:
        """Those that have a section and pictures of their own, in their order."""
        return (*self.students, *self.teachers)


@dataclass(frozen=True)
class _Teacher:
    """A teacher's run and the weights and step of it that taught."""

    run: RunRecord
    weights: WeightsKind
    step: int | None

    def accuracies(self) -> dict[str, float]:
        """Top-1 with which it taught; the final one where that step was not evaluated."""
        at_step = self.run.accuracies(self.weights, step=self.step)
        return at_step or self.run.accuracies(self.weights)


def compare_runs(
    directories: Iterable[str | Path],
    *,
    teacher: str | Path | None = None,
    weights: WeightsKind | None = None,
) -> Comparison:
    """Read runs, find their teachers and put those together that differ only in the seed.

    Args:
        directories: run directories; a teacher among them is recognised by its students.
        teacher: run directory of the teacher of all students, instead of the one they name.
        weights: whose accuracies to show; if None, those by which the runs' own configurations
            judge.

    Raises:
        FileNotFoundError: a directory does not exist.
        ValueError: it is not a run, lacks these weights, is not the teacher it is said to be, or
            no run has been evaluated yet.
    """
    runs = read_runs(directories)
    notes: list[str] = []
    found = _find_teachers(runs, teacher, notes)
    teachers = {known.run.path.resolve() for known in found.values()}
    students = [run for run in runs if run.path.resolve() not in teachers]
    chosen = weights or _weights_of(students)
    evaluated = [run for run in students if run.accuracies(chosen)]
    for run in students:
        if run not in evaluated:
            notes.append(f"{run.path} has not been evaluated yet and is left out.")
    if not evaluated:
        raise ValueError(
            f"None of the runs has been evaluated yet: {', '.join(str(r.path) for r in students)}."
        )
    experiments = _student_experiments(evaluated, found, chosen)
    for experiment in experiments:
        notes += _repeated_seeds(experiment)
    notes += _kept_labels(evaluated)
    return Comparison(_teacher_experiments(found), experiments, chosen, tuple(notes))


def _find_teachers(
    runs: Sequence[RunRecord], given: str | Path | None, notes: list[str]
) -> dict[Path, _Teacher]:
    """Return the teachers that can be shown, by the path of the student's run."""
    read = {run.path.resolve(): run for run in runs}
    if given:
        read[Path(given).resolve()] = read_run(given)
    found: dict[Path, _Teacher] = {}
    for student in runs:
        if not taught(student):
            continue
        named = given or student.config["teacher"]["weights"]
        if not named:
            # Its labels were there.
            notes.append(
                f"{student.path} does not say where its teacher is; show it with --teacher."
            )
            continue
        path = Path(named)
        try:
            run = read.get(path.resolve()) or read_run(path)
        except (FileNotFoundError, ValueError):
            notes.append(
                f"The teacher of {student.path}, {path}, is no run, so nothing says how good it is."
                if path.exists()
                else f"The teacher of {student.path} is not at {path}; show where it is with "
                "--teacher."
            )
            continue
        read[path.resolve()] = run
        known = _what_taught(student, run)
        if known.accuracies():
            found[student.path] = known
    if given and not found:
        raise ValueError(f"None of the runs had a teacher, so --teacher {given} has no place.")
    return found


def _what_taught(student: RunRecord, teacher: RunRecord) -> _Teacher:
    wanted, actual = student.config["teacher"]["name"], teacher.config["model"]["name"]
    if wanted != actual:
        raise ValueError(
            f"{student.path} was taught by {wanted}, but {teacher.path} trained {actual}; "
            "name the right run with --teacher."
        )
    facts = (student.result or {}).get("teacher") or {}
    weights: WeightsKind = "ema" if student.config["teacher"]["ema"] else "raw"
    return _Teacher(teacher, weights, facts.get("step"))


def _weights_of(runs: Sequence[RunRecord]) -> WeightsKind:
    chosen = {run.config["evaluation"]["weights"] for run in runs}
    if len(chosen) > 1:
        raise ValueError(
            "Some of these runs are judged by raw and some by ema weights (their "
            "config.evaluation.weights); choose with --weights raw or --weights ema."
        )
    return chosen.pop() if chosen else "raw"


def _student_experiments(
    students: Sequence[RunRecord], found: Mapping[Path, _Teacher], weights: WeightsKind
) -> tuple[Experiment, ...]:
    teachers = [found.get(run.path) for run in students]
    keys = [
        experiment_key(run, known.run if known else None)
        for run, known in zip(students, teachers, strict=True)
    ]
    groups = group_by_key(students, keys)
    names = distinct_labels([method(runs[0]) for _, runs in groups], [key for key, _ in groups])
    experiments = [
        Experiment(
            name if runs[0].result else f"{name}, unfinished",
            tuple(runs),
            tuple(run.accuracies(weights) for run in runs),
        )
        for name, (_, runs) in zip(names, groups, strict=True)
    ]
    return tuple(sorted(experiments, key=_place))


def _place(experiment: Experiment) -> tuple[str, int]:
    """Sort by architecture, then as the paper's table does."""
    name = method(experiment.first)
    place = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    return experiment.architecture, place


def _teacher_experiments(found: Mapping[Path, _Teacher]) -> tuple[Experiment, ...]:
    """Group the teachers; two checkpoints of one run are two teachers."""
    unique = {
        (known.run.path.resolve(), known.weights, known.step): known for known in found.values()
    }
    # An unfinished student has not told the step; another one of the same teacher may have.
    told = {(path, weights) for path, weights, step in unique if step is not None}
    teachers = [
        known
        for (path, weights, step), known in unique.items()
        if step is not None or (path, weights) not in told
    ]
    several = len({known.run.path.resolve() for known in teachers}) < len(teachers)
    keys = [
        {
            **experiment_key(known.run),
            "weights": known.weights,
            **({"step": str(known.step)} if several else {}),
        }
        for known in teachers
    ]
    groups = group_by_key(teachers, keys)
    names = distinct_labels(["teacher"] * len(groups), [key for key, _ in groups])
    return tuple(
        Experiment(
            name,
            tuple(known.run for known in members),
            tuple(known.accuracies() for known in members),
        )
        for name, (_, members) in zip(names, groups, strict=True)
    )


def _repeated_seeds(experiment: Experiment) -> list[str]:
    seeds = sorted(run.config["seed"] for run in experiment.runs)
    if len(set(seeds)) == len(seeds):
        return []
    return [
        f"The runs of '{experiment.label}' repeat a seed ({', '.join(map(str, seeds))}): they are "
        "not independent, and their spread is too small."
    ]


def _kept_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Say where the teacher's answers are from, and how many had to be computed."""
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if labels := (run.result or {}).get("labels"):
            kept.setdefault(labels.get("directory", "?"), []).append(labels)
    return [
        f"The teacher's labels of {len(records)} run(s) are kept in {directory}: of "
        f"{sum(r.get('computed', 0) for r in records):,} steps they were computed, of "
        f"{sum(r.get('read', 0) for r in records):,} read."
        for directory, records in kept.items()
    ]
