"""Finished runs of named experiments, put where the paper's tables have them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deit_jax.config import families
from deit_jax.config.paper import Cell, PaperTable
from deit_jax.reports.experiments import Key, Spread, experiment_key, spread
from deit_jax.reports.table3 import percent
from deit_jax.runs.history import RunRecord, read_run
from deit_jax.tables import Column, markdown_table

ExperimentName = tuple[str, str]
"""Family of the config file and argument."""

_NOTHING = "-"


@dataclass(frozen=True)
class Collection:
    """The finished runs of each experiment, and sentences about what is not among them."""

    runs: Mapping[ExperimentName, Sequence[RunRecord]]
    notes: tuple[str, ...]

    def runs_of(self, family: str, cell: Cell) -> Sequence[RunRecord]:
        """Return the runs of a figure's experiment, which a table of this family has."""
        return self.runs.get((cell.family or family, cell.argument), ())

    def measured(self, family: str, cell: Cell) -> Spread | None:
        """Return top-1 in percent over the seeds; None if no run of this experiment is there."""
        values = []
        for run in self.runs_of(family, cell):
            heads = run.accuracies(run.config["evaluation"]["weights"])
            values += [heads[head] for head in [cell.head or run.inference_head] if head in heads]
        return spread(values) if values else None


def collect(directories: Iterable[str | Path]) -> Collection:
    """Find runs of `train.py` in directories, and sort them by the experiment they were started as.

    Raises:
        FileNotFoundError: a directory does not exist.
        ValueError: there is no finished run, or two of one experiment differ in more than the seed.
    """
    places = [Path(directory) for directory in directories]
    found: dict[Path, None] = {}
    for directory in places:
        if not directory.is_dir():
            raise FileNotFoundError(f"There is no directory {directory}.")
        paths = sorted(file.parent for file in directory.rglob("config.json"))
        found |= dict.fromkeys(path.resolve() for path in paths)
    runs: dict[ExperimentName, list[RunRecord]] = {}
    notes = []
    for path in found:
        run = read_run(path)
        experiment = started_as(run.record.get("command", ()))
        if run.result is None:
            notes.append(f"{path} is unfinished and left out.")
        elif experiment is None:
            notes.append(f"{path} does not say which config file it was started with; left out.")
        else:
            runs.setdefault(experiment, []).append(run)
    if not runs:
        listed = ", ".join(map(str, places))
        raise ValueError(f"There is no finished run in {listed}; let the sweep run first.")
    for experiment, members in runs.items():
        _refuse_mixture(experiment, members)
    return Collection(runs, tuple(notes))


def started_as(command: Sequence[str]) -> ExperimentName | None:
    """Return the experiment that a run's command line, word by word, names, if it does."""
    for word, following in zip(command, [*command[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config"):
            file, _, argument = (value if equals else following).partition(":")
            return (Path(file).stem, argument) if file.endswith(".py") else None
    return None


def paper_tables(collection: Collection) -> list[tuple[str, PaperTable]]:
    """Return (family, table) of all tables that one of these experiments stands in.

    A config file's tables are its `PAPER`. Experiments without one get a plain list.
    """
    tables = []
    for family in dict.fromkeys(family for family, _ in collection.runs):
        known = _tables_of(family)
        placed = {
            cell.argument for table in known for cell in table.cells if cell.family in ("", family)
        }
        tables += [(family, table) for table in known]
        others = [name for of, name in collection.runs if of == family and name not in placed]
        if others:
            rows: dict[str, tuple[Cell | None, ...]] = {name: (Cell(name),) for name in others}
            tables.append((family, PaperTable(f"configs/{family}.py", ("top-1",), rows)))
    return [
        (family, table)
        for family, table in tables
        if any(collection.measured(family, cell) for cell in table.cells)
    ]


def paper_markdown(collection: Collection, family: str, table: PaperTable) -> str:
    """Return one table: measured figures, the published ones in brackets."""
    columns = [Column(""), *(Column(name, True) for name in table.columns)]
    rows = [
        (name, *(_figure(collection, family, cell) for cell in cells))
        for name, cells in table.rows.items()
    ]
    return f"## {table.title}\n\n{markdown_table(columns, rows)}\n"


def paper_caption(collection: Collection, family: str, table: PaperTable) -> str:
    """Say what the figures are means of."""
    counts = {len(collection.runs_of(family, cell)) for cell in table.cells} - {0}
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    return (
        f"Top-1 in percent, mean ± sample standard deviation over seeds ({seeds} each), of the "
        "last step; published figures in brackets. Overrides of the named experiments: "
        f"{', '.join(_overrides(collection, family, table)) or 'none'}."
    )


def _figure(collection: Collection, family: str, cell: Cell | None) -> str:
    if cell is None:
        return _NOTHING
    published = "" if cell.published is None else f" ({cell.published})"
    return percent(collection.measured(family, cell)) + published


def _overrides(collection: Collection, family: str, table: PaperTable) -> list[str]:
    """Return the flags, but for seeds and places, with which any of the runs was started."""
    given: dict[str, None] = {}
    for cell in table.cells:
        for run in collection.runs_of(family, cell):
            given |= dict.fromkeys(run.record.get("overrides", []))
    free = (
        "config.seed=",
        "config.data.directory=",
        "config.teacher.weights=",
        "config.model.weights=",
    )
    return [f"`--{flag}`" for flag in given if not flag.startswith(free)]


def _tables_of(family: str) -> tuple[PaperTable, ...]:
    """Return the tables of a config file of the project; () where it has none."""
    return getattr(families.family(family), "PAPER", ())


def _refuse_mixture(experiment: ExperimentName, runs: Sequence[RunRecord]) -> None:
    """Raise if runs of one experiment were made with different settings."""
    first, *others = (_key(run) for run in runs)
    for run, key in zip(runs[1:], others, strict=True):
        names = sorted(name for name in {**first, **key} if first.get(name) != key.get(name))
        if names:
            raise ValueError(
                f"{runs[0].path} and {run.path} are both {experiment[0]}.py:{experiment[1]} but "
                f"differ in {', '.join(names[:3])}; collect them apart."
            )


def _key(run: RunRecord) -> Key:
    """Return what may not differ: where weights and data lie may, as each seed can have its own."""
    key = dict(experiment_key(run))
    for name in ("teacher.weights", "model.weights", "data.directory"):
        key.pop(name, None)
    return key
