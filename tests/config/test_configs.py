"""Every config file with every documented argument: valid, documented, and buildable."""

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from deit_jax.config.keys import flatten
from deit_jax.config.validate import validate
from deit_jax.models.functional import abstract, count_parameters
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.training.freezing import trainable
from deit_jax.training.optimizer import make_optimizer

FAMILIES = ("ablation", "deit", "digits", "distill", "finetune", "linear", "teacher", "transfer")
EXPERIMENTS = [
    (family, argument)
    for family in FAMILIES
    for argument in importlib.import_module(f"configs.{family}").ARGUMENTS
]


@pytest.fixture
def run_directory(tmp_path):
    (tmp_path / "teacher").mkdir()
    return str(tmp_path / "teacher")


@pytest.mark.parametrize(("family", "argument"), EXPERIMENTS)
def test_builds_and_validates(family, argument, run_directory):
    config = importlib.import_module(f"configs.{family}").get_config(argument)
    if config.data.source != "digits":
        config.data.directory = "prepared"
    if config.distillation.kind != "none":
        config.teacher.weights = run_directory
    assert validate(config) == []
    build = model_builder(
        config.model.name,
        num_classes=config.model.num_classes,
        image_size=tuple(config.model.image_size),
        drop_path_rate=config.model.drop_path_rate,
        dtype=jnp.dtype(config.model.dtype),
    )
    function, params, batch_stats = abstract(build)
    spec = model_spec(config.model.name)
    if tuple(config.model.image_size) == spec.image_size and config.model.num_classes == (
        spec.num_classes
    ):
        assert count_parameters(params) == spec.parameters
    images = jax.ShapeDtypeStruct((2, *config.model.image_size, 3), jnp.float32)
    (logits, second), _ = jax.eval_shape(function.head_logits, params, batch_stats, images)
    assert logits.shape == (2, config.model.num_classes)
    assert (second is not None) == ("distilled" in config.model.name)
    optimizer = make_optimizer(config.optimizer, params, trainable(params, config))
    jax.eval_shape(optimizer.init, params)


@pytest.mark.parametrize("family", FAMILIES)
def test_docstring_has_command_figure_cost_and_deviations(family):
    module = importlib.import_module(f"configs.{family}")
    text = module.__doc__
    command = rf"python train\.py --config configs/{family}\.py:([\w,]+) +--workdir"
    for argument in re.findall(command, text):
        assert argument in module.ARGUMENTS
    assert re.search(command, text)
    assert re.search("published", text, re.IGNORECASE)
    assert re.search(r"\bcost\b", text, re.IGNORECASE)
    assert re.search("deviations", text, re.IGNORECASE)
    for argument in module.ARGUMENTS:
        # Suffixes that go with every argument are explained once.
        assert re.sub(",(class_token|384|soft|hard|distilled)$", "", argument) in text


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_argument_is_refused(family):
    with pytest.raises(ValueError):
        importlib.import_module(f"configs.{family}").get_config("smoll")


def test_the_recipe_is_that_of_table_9():
    values = flatten(importlib.import_module("configs.deit").get_config("base"))
    table = {
        "schedule.epochs": 300,
        "training.batch_size": 1024,
        "optimizer.learning_rate": 5e-4,
        "optimizer.weight_decay": 0.05,
        "schedule.warmup_epochs": 5,
        "training.label_smoothing": 0.1,
        "model.drop_rate": 0,
        "model.drop_path_rate": 0.1,
        "data.repeats": 3,
        "optimizer.clip_norm": 0,
        "augment.policy": "rand-m9-mstd0.5-inc1",
        "mix.mixup_alpha": 0.8,
        "mix.cutmix_alpha": 1.0,
        "augment.erasing_probability": 0.25,
    }
    assert {key: values[key] for key in table} == table


def test_every_row_of_the_ablation_changes_what_it_says():
    ablation = importlib.import_module("configs.ablation")
    for size, stage in (("", "pretraining"), (",384", "finetuning")):
        default = flatten(ablation.get_config(f"default{size}"))
        for name, row in ablation.TABLE.items():
            values = flatten(ablation.get_config(f"{name}{size}"))
            changed = {key for key in values if values[key] != default[key]} - {"model.weights"}
            # In fine-tuning stochastic depth and dropout are off in any case (evaluation mode).
            assert changed == set(row.changes | getattr(row, stage)), name


def test_the_table_of_the_ablation_is_in_the_docs():
    lines = (Path(__file__).parents[2] / "docs" / "ablation.md").read_text().splitlines()
    rows = importlib.import_module("configs.ablation").TABLE
    expected = [f"| `{n}` | {r.what} | {r.top1} | {r.top1_384} |" for n, r in rows.items()]
    assert [line for line in lines if line.startswith("| `")] == expected
