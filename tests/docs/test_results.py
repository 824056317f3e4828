"""The page of results: its figures are those of the config files, its costs follow its formula."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.flops import vit_forward_flops
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder

TEXT = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
IMAGES = 1_281_167


def tables():
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line.startswith("| ")
    ]


COSTS = [row for row in tables() if len(row) == 7 and row[1].isdigit()]


@pytest.mark.parametrize("row", COSTS, ids=lambda row: row[0])
def test_costs_follow_the_formula(row):
    family, argument = row[0].strip("`").split(":")
    config = importlib.import_module(f"configs.{family}").get_config(argument)
    epochs, student, teacher, total, computing, reading = map(float, row[1:])
    assert epochs == config.schedule.epochs
    assert bool(teacher) == (config.distillation.kind != "none")
    if "patch" in config.model.name:
        size = tuple(config.model.image_size)
        params = abstract(model_builder(config.model.name, image_size=size))[1]
        assert student == pytest.approx(vit_forward_flops(params, size) / 1e9, abs=0.006)
    assert total == pytest.approx(3 * student + teacher, abs=0.051)
    hours = epochs * IMAGES * total * 1e9 / (8 * 790e12 * 0.4) / 3600
    assert computing == pytest.approx(hours, abs=0.06)
    assert reading == pytest.approx(epochs * IMAGES / 20_000 / 3600, abs=0.06)


def test_there_are_costs():
    assert len(COSTS) == 10


def test_table_3_is_that_of_the_config_file():
    module = importlib.import_module("configs.distill")
    found = {row[0]: row[1:5] for row in tables() if len(row) == 6}
    for name, cells in module.PAPER[0].rows.items():
        assert found[name] == [str(cell.published) for cell in cells]
    long = [cell.published for cell in module.PAPER[1].rows["hard, both"]]
    assert found["hard, both, 1,000 epochs"][:3] == list(map(str, long))


def test_the_table_of_fine_tuning_and_transfer_is_that_of_the_config_files():
    finetune = importlib.import_module("configs.finetune").PAPER[0].rows
    transfer = importlib.import_module("configs.transfer")
    seen = 0
    for row in tables():
        match = re.fullmatch(r"`(finetune|transfer):(\w+)`", row[1]) if len(row) > 3 else None
        if not match:
            continue
        family, name = match.groups()
        if family == "finetune":
            assert row[2] == str(finetune[name][0].published)
        else:
            assert row[2:] == [str(cell.published) for cell in transfer.PAPER[0].rows[name]]
            line = rf"^\| {name} \|.*\| {row[2]} \| {row[3]} \|"
            assert re.search(line, transfer.__doc__, re.MULTILINE)
        seen += 1
    assert seen == 10


def test_table_2_is_that_of_the_config_file():
    names = {"deit_base": "DeiT-B", "regnety_040": "RegNetY-4GF", "regnety_160": "16GF"}
    for name, cells in importlib.import_module("configs.teacher").PAPER[0].rows.items():
        printed = ", ".join(str(cell.published) for cell in cells)
        assert f"{names.get(name, '')} {printed}" in " ".join(TEXT.split())
