"""Runs of named experiments in the layout of the paper's tables."""

import json
import statistics

import pytest

from configs import ablation
from deit_jax.cli.main import main
from deit_jax.reports.paper_tables import collect, paper_markdown, paper_tables, started_as


@pytest.fixture
def named(run_directory):
    """Return `make(name, "family:argument", ...)`: a run started as that experiment."""

    def make(name, experiment, what="none", flags=(), changes=None, **options):
        path = run_directory(name, what, overrides=changes, **options)
        file, _, argument = experiment.partition(":")
        record = json.loads((path / "config.json").read_text())
        record["command"] = ["train.py", f"--config=configs/{file}.py:{argument}", "--workdir=x"]
        record["overrides"] = list(flags)
        (path / "config.json").write_text(json.dumps(record))
        return path

    return make


def final(path, head, weights="raw"):
    return json.loads((path / "result.json").read_text())["evaluation"][weights][head]["top1"]


def only_table(directory):
    collection = collect([directory])
    ((family, table),) = paper_tables(collection)
    return paper_markdown(collection, family, table)


def cells(text, row):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_heads_of_one_run_are_three_rows_of_table_3(named, tmp_path):
    runs = [named(f"hard{n}", "distill:tiny,hard", "hard", seed=n, final=80 + n) for n in range(3)]
    named("none", "distill:tiny,none", final=70.0)
    collection = collect([tmp_path])
    text = paper_markdown(collection, *paper_tables(collection)[0])
    for row, head, published in (
        ("hard, class head", "class", 73.9),
        ("hard, distil. head", "distillation", 74.6),
        ("hard, both", "fused", 74.5),
    ):
        values = [final(run, head) for run in runs]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        assert cells(text, row)[0] == f"{mean:.2f} ± {deviation:.2f} ({published})"
    # One run has no spread, and what was not run has only the published figure.
    assert cells(text, "none")[0] == f"{final(tmp_path / 'none', 'class'):.2f} (72.2)"
    assert cells(text, "soft, class token") == ["- (72.2)", "- (79.8)", "- (81.8)", "- (83.2)"]


def test_both_sizes_of_the_ablation_and_the_weights_that_count(named, tmp_path):
    named("a", "ablation:no_mixup", final=75.0)
    named("b", "ablation:no_mixup,384", final=77.0)
    averaged = named("c", "ablation:ema", final=79.0, changes={"evaluation.weights": "ema"})
    text = only_table(tmp_path)
    assert cells(text, "no Mixup") == [
        f"{final(tmp_path / name, 'class'):.2f} ({top1})"
        for name, top1 in (("a", 78.7), ("b", 79.8))
    ]
    assert cells(text, "moving average evaluated")[0] == (
        f"{final(averaged, 'class', 'ema'):.2f} (81.9)"
    )
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == (
        len(ablation.TABLE) + 2
    )


def test_an_experiment_without_a_table_is_listed(named, tmp_path):
    named("x", "digits:soft", "soft")
    assert "## configs/digits.py" in only_table(tmp_path)
    assert cells(only_table(tmp_path), "soft") == [f"{final(tmp_path / 'x', 'fused'):.2f}"]


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(named, tmp_path):
    named("a", "deit:tiny", seed=0)
    named("b", "deit:tiny", seed=1, changes={"schedule.epochs": 5.0})
    with pytest.raises(ValueError, match=r"deit.py:tiny but differ in schedule.epochs"):
        collect([tmp_path])


def test_unfinished_and_unnamed_runs_are_said_to_be_left_out(named, run_directory, tmp_path):
    named("done", "deit:tiny")
    named("going", "deit:small", finished=False)
    run_directory("nameless")
    notes = collect([tmp_path]).notes
    assert any("going is unfinished" in note for note in notes)
    assert any("nameless does not say" in note for note in notes)
    with pytest.raises(ValueError, match="There is no finished run"):
        collect([tmp_path / "going"])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["train.py", "--config=configs/distill.py:tiny,hard", "--workdir=x"], "tiny,hard"),
        (["train.py", "--workdir", "x", "--config", "/a/distill.py:tiny,hard"], "tiny,hard"),
        (["train.py", "-config=distill.py", "--config.seed=1"], ""),
        (["train.py", "--config=/my runs/distill.py:tiny,hard"], "tiny,hard"),
        (["train.py", "--config.data.directory=x.py:y"], None),
    ],
)
def test_the_command_line_names_the_experiment(command, expected):
    assert started_as(command) == (None if expected is None else ("distill", expected))


def test_the_command_writes_tables_and_pictures(named, tmp_path, capsys):
    named("a", "ablation:default", flags=["config.schedule.epochs=3", "config.seed=0"])
    assert main(["sweep", "--collect", str(tmp_path), f"--output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "Table 8" in text and "`--config.schedule.epochs=3`" in text and "seed=0" not in text
    picture = tmp_path / "out" / "table-1-ablation.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.name in text
    assert str(picture) in capsys.readouterr().out
