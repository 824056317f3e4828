"""The pages of results: figures are those of the config files, costs follow their formula."""

import functools
import importlib
import re
from pathlib import Path

import pytest

from benchmarks.flops import vit_forward_flops
from deit_jax.data.papers.facts import DATASETS
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder

DOCS = Path(__file__).parents[2] / "docs"
OVERVIEW = DOCS / "results.md"
PAGES = sorted((DOCS / "results").glob("*.md"))
# The one measurement behind the estimates, of benchmarks/results/2026-11-26-h200.md.
IMAGES_PER_SECOND, GFLOP = 8461, 27.6
TERAFLOPS = round(IMAGES_PER_SECOND * GFLOP / 1e3)
# What every page has to say; that of a measurement reproduces nothing.
HEADINGS = ("## Commands", "## What it ", "## Deviations", "## Not reproduced")


def tables(page):
    """Cells of all lines of tables, headings too."""
    lines = page.read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ]


def page(name):
    return tables(DOCS / "results" / f"{name}.md")


COSTS = {
    (path.stem, row[0].strip("`")): row[1:]
    for path in PAGES
    for row in tables(path)
    if len(row) == 8 and row[2].isdigit()
}


def config_of(experiment):
    family, argument = experiment.split(":")
    return importlib.import_module(f"configs.{family}").get_config(argument)


@functools.cache
def gflop(name, size):
    """Operations of a forward pass in units of 1e9."""
    if "patch" in name:
        params = abstract(model_builder(name, image_size=size))[1]
        return vit_forward_flops(params, size) / 1e9
    # regnety_160 has 16.0e9 multiply-adds.
    return 2 * int(name.removeprefix("regnety_")) / 10


def precision(hours):
    """Half a unit of the last digit: two below an hour, else one."""
    return 0.0051 if hours < 1 else 0.051


@pytest.mark.slow
@pytest.mark.parametrize(("where", "experiment"), COSTS)
def test_costs_follow_the_formula(where, experiment):
    config, family = config_of(experiment), experiment.split(":")[0]
    cells = [float(cell.replace(",", "")) for cell in COSTS[where, experiment]]
    images, epochs, student, teacher, total, computing, reading = cells
    data = {"transfer": experiment.split(":")[1], "scratch": "cifar10"}.get(family, "imagenet")
    assert images == DATASETS[data].images["train"]
    assert epochs == config.schedule.epochs
    size = tuple(config.model.image_size)
    assert student == pytest.approx(gflop(config.model.name, size), abs=0.006)
    taught = config.distillation.kind != "none"
    seen = tuple(config.teacher.image_size)
    expected = gflop(config.teacher.name, size if seen == (0, 0) else seen) if taught else 0
    assert teacher == pytest.approx(expected, abs=0.006)
    passes = 1 if config.training.parts == "heads" else 6 if config.training.cosub else 3
    assert total == pytest.approx(passes * student + teacher, abs=0.051)
    hours = epochs * images * total / (8e3 * TERAFLOPS) / 3600
    # To the digits that are printed, of `total` too.
    assert computing == pytest.approx(hours, rel=0.05 / total, abs=precision(computing))
    expected = epochs * images / 20_000 / 3600
    assert reading == pytest.approx(expected, abs=precision(reading))


def test_the_measurement_is_on_its_page():
    measured = (DOCS.parent / "benchmarks" / "results" / "2026-11-26-h200.md").read_text()
    row = next(line for line in measured.splitlines() if "| train |" in line)
    assert f"| {IMAGES_PER_SECOND} | 24 % |" in row
    text = OVERVIEW.read_text()
    assert f"{IMAGES_PER_SECOND:,} images per second of {GFLOP} GFLOP" in text
    assert f"(8 × {TERAFLOPS} TFLOP/s)" in text


def test_every_page_says_everything_and_is_in_the_overview():
    assert len(PAGES) >= 10
    text = OVERVIEW.read_text()
    for path in PAGES:
        wanted = HEADINGS[:3] if path.stem == "digits-finetuning" else HEADINGS
        assert [h for h in wanted if f"\n{h}" not in path.read_text()] == [], path.stem
        assert f"results/{path.name}" in text
        costs = [where for where, _ in COSTS if where == path.stem]
        assert costs or path.stem in ("evaluation", "digits-finetuning")


def test_the_overview_repeats_the_pages():
    rows = [row for row in tables(OVERVIEW) if re.fullmatch(r"`\w+:[\w,]+`", row[2])]
    assert len(rows) >= 20
    for _, link, experiment, figure, hours in rows:
        where = re.fullmatch(r"\[([\w-]+)\]\(results/\1\.md\)", link)[1]
        *_, computing, reading = COSTS[where, experiment.strip("`")]
        assert hours == max(computing, reading, key=float)
        family, argument = experiment.strip("`").split(":")
        published = figures_of(family, argument)
        assert (figure in published) if published else figure == "-", experiment


def figures_of(family, argument):
    """Published top-1 of all heads of an experiment."""
    found = set()
    for name in {family, "distill"}:
        for table in getattr(importlib.import_module(f"configs.{name}"), "PAPER", ()):
            cells = [cell for row in table.rows.values() for cell in row if cell]
            found |= {
                str(cell.published)
                for cell in cells
                if (cell.family or name, cell.argument) == (family, argument) and cell.published
            }
    return found


def test_table_3_is_that_of_the_config_file():
    module = importlib.import_module("configs.distill")
    found = {row[0]: row[1:5] for row in page("distillation") if len(row) == 6}
    for name, cells in module.PAPER[0].rows.items():
        assert found[name] == [str(cell.published) for cell in cells]
    long = [cell.published for cell in module.PAPER[1].rows["hard, both"]]
    assert found["hard, both, 1,000 epochs"][:3] == list(map(str, long))


def test_the_tables_of_fine_tuning_and_transfer_are_those_of_the_config_files():
    finetune = importlib.import_module("configs.finetune").PAPER[0].rows
    rows = {row[1].strip("`"): row[2] for row in page("finetuning") if len(row) == 6}
    assert {f"finetune:{size}": str(cells[0].published) for size, cells in finetune.items()} == {
        name: figure for name, figure in rows.items() if name.startswith("finetune")
    }
    transfer = importlib.import_module("configs.transfer")
    scratch = importlib.import_module("configs.scratch").PAPER[0].rows.values()
    rows = {row[1].strip("`"): row[2:] for row in page("transfer") if len(row) == 4}
    for name, cells in transfer.PAPER[0].rows.items():
        figures = rows.pop(f"transfer:{name}")
        assert figures == [str(cell.published) for cell in cells]
        line = rf"^\| {name} \|.*\| {figures[0]} \| {figures[1]} \|"
        assert re.search(line, transfer.__doc__, re.MULTILINE)
    for (cell,) in scratch:
        assert str(cell.published) in rows.pop(f"scratch:{cell.argument}")
    assert list(rows) == ["experiment"]


@pytest.mark.parametrize(
    ("name", "columns", "skipped"), [("teachers", 5, 2), ("deit3", 4, 1), ("deit", 5, 2)]
)
def test_other_tables_are_those_of_the_config_files(name, columns, skipped):
    module = importlib.import_module(f"configs.{name.removesuffix('s')}")
    found = [row for row in page(name) if len(row) == columns][1:]
    rows = module.PAPER[0].rows
    assert len(found) == len(rows)
    for line, (key, cells) in zip(found, rows.items(), strict=True):
        assert key in line[0]
        printed = [str(cell.published) if cell else "-" for cell in cells]
        assert line[skipped : skipped + len(printed)] == printed
