"""Every config file with every documented argument: valid, documented, and buildable."""

import functools
import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from deit_jax.config.keys import leaves_by_key
from deit_jax.config.validate import validate
from deit_jax.models.functional import abstract, count_parameters
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.training.freezing import trainable
from deit_jax.training.optimizer import make_optimizer

FAMILIES = tuple(
    sorted(file.stem for file in (Path(__file__).parents[2] / "configs").glob("[a-z]*.py"))
)
EXPERIMENTS = [
    (family, argument)
    for family in FAMILIES
    for argument in importlib.import_module(f"configs.{family}").ARGUMENTS
]
ONE_OF_EACH = list({family: (family, argument) for family, argument in EXPERIMENTS[::-1]}.values())


@pytest.fixture
def run_directory(tmp_path):
    (tmp_path / "teacher").mkdir()
    return str(tmp_path / "teacher")


def configuration(family, argument):
    return importlib.import_module(f"configs.{family}").get_config(argument)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "argument"), EXPERIMENTS)
def test_is_valid(family, argument, run_directory):
    config = configuration(family, argument)
    if config.data.source != "digits":
        config.data.directory = "prepared"
    if config.distillation.kind != "none":
        config.teacher.weights = run_directory
    assert validate(config, device_count=8) == []


# Every model of a published size is built in tests/models, beside timm's.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "argument"),
    [
        pytest.param(*one, marks=() if one in ONE_OF_EACH else pytest.mark.full)
        for one in EXPERIMENTS
    ],
)
def test_builds(family, argument):
    config = configuration(family, argument)
    model = config.model
    size = tuple(model.image_size)
    options = {"num_classes": model.num_classes or 10, "image_size": size}
    # Whatever else it is given decides about no shape.
    model_builder(
        model.name, drop_path_rate=model.drop_path_rate, dtype=jnp.dtype(model.dtype), **options
    )
    params = check_model(model.name, **options)
    optimizer = make_optimizer(config.optimizer, params, trainable(params, config))
    jax.eval_shape(optimizer.init, params)


@functools.cache
def check_model(name, num_classes, image_size):
    """Build the model without computing; many experiments share one. Returns its shapes."""
    function, params, batch_stats = abstract(
        model_builder(name, num_classes=num_classes, image_size=image_size)
    )
    spec = model_spec(name)
    if (image_size, num_classes) == (spec.image_size, spec.num_classes):
        assert count_parameters(params) == spec.parameters
    images = jax.ShapeDtypeStruct((2, *image_size, 3), jnp.float32)
    (logits, second), _ = jax.eval_shape(function.head_logits, params, batch_stats, images)
    assert logits.shape == (2, num_classes)
    assert (second is not None) == ("distilled" in name)
    return params


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
        for part in argument.split(","):
            assert re.search(rf"\b{part}\b", text), argument


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_argument_is_refused(family):
    with pytest.raises(ValueError):
        importlib.import_module(f"configs.{family}").get_config("smoll")


def test_the_recipe_is_that_of_table_9():
    values = leaves_by_key(importlib.import_module("configs.deit").get_config("base"))
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
        default = leaves_by_key(ablation.get_config(f"default{size}"))
        for name, row in ablation.TABLE.items():
            values = leaves_by_key(ablation.get_config(f"{name}{size}"))
            changed = {key for key in values if values[key] != default[key]} - {"model.weights"}
            # In fine-tuning stochastic depth and dropout are off in any case (evaluation mode).
            assert changed == set(row.changes | getattr(row, stage)), name


def test_the_table_of_the_ablation_is_in_the_docs():
    page = Path(__file__).parents[2] / "docs" / "results" / "ablation.md"
    lines = [line for line in page.read_text().splitlines() if line.count("|") == 5]
    rows = importlib.import_module("configs.ablation").TABLE
    expected = [f"| `{n}` | {r.what} | {r.top1} | {r.top1_384} |" for n, r in rows.items()]
    assert [line for line in lines if line.startswith("| `")] == expected


def test_every_figure_of_a_table_has_an_experiment():
    seen = 0
    for family in FAMILIES:
        for table in getattr(importlib.import_module(f"configs.{family}"), "PAPER", ()):
            assert "arXiv" in table.title
            for name, row in table.rows.items():
                assert len(row) == len(table.columns), name
            cells = {cell for row in table.rows.values() for cell in row if cell}
            for other, argument in {(cell.family, cell.argument) for cell in cells}:
                module = importlib.import_module(f"configs.{other or family}")
                assert argument in module.ARGUMENTS
                seen += 1
    assert seen > 70


def test_table_3_of_the_paper():
    # Top-1 of rows 1 to 6 as printed, Ti, S, B and B at 384.
    printed = [
        (72.2, 79.8, 81.8, 83.1),
        (72.2, 79.8, 81.8, 83.2),
        (74.3, 80.9, 83.0, 84.0),
        (73.9, 80.9, 83.0, 84.2),
        (74.6, 81.1, 83.1, 84.4),
        (74.5, 81.2, 83.4, 84.5),
    ]
    module = importlib.import_module("configs.distill")
    rows = [tuple(cell.published for cell in row) for row in module.PAPER[0].rows.values()]
    assert rows == printed
    for size in ("tiny", "small", "base"):
        plain, deit = (
            importlib.import_module(f"configs.{family}").get_config(argument)
            for family, argument in (("distill", f"{size},none"), ("deit", size))
        )
        assert leaves_by_key(plain) == leaves_by_key(deit)


def test_methods_of_table_3_differ_in_the_supervision_alone():
    module = importlib.import_module("configs.distill")
    plain = leaves_by_key(module.get_config("base,none"))

    def changed(argument):
        values = leaves_by_key(module.get_config(argument))
        return {key: value for key, value in values.items() if value != plain[key]}

    token = "deit_base_distilled_patch16_224"
    soft = {"distillation.kind": "soft", "distillation.weight": 0.1}
    assert changed("base,soft,class_token") == soft
    assert changed("base,hard,class_token") == {"distillation.kind": "hard"}
    assert changed("base,soft") == {**soft, "model.name": token}
    assert changed("base,hard") == {"distillation.kind": "hard", "model.name": token}
    assert changed("base,hard,1000") == {**changed("base,hard"), "schedule.epochs": 1000.0}
    assert plain["distillation.temperature"] == 3.0


def test_teachers_at_their_own_resolution():
    finetune = importlib.import_module("configs.finetune")
    for argument in finetune.ARGUMENTS:
        config = finetune.get_config(argument)
        taught = config.distillation.kind != "none"
        assert config.teacher.image_size == ((224, 224) if taught else (0, 0))
        assert config.model.image_size == (int(argument[:3]),) * 2
        assert config.training.eval_mode == (not taught)


def test_every_teacher_of_table_2_teaches():
    module = importlib.import_module("configs.teacher")
    for name in ("regnety_040", "deit_base"):
        trained, student, tuned = (
            module.get_config(f"{name}{role}") for role in ("", ",student", ",student,384")
        )
        assert student.teacher.name == tuned.teacher.name == trained.model.name
        assert student.model.name == "deit_base_distilled_patch16_224"
        assert tuned.model.name == "deit_base_distilled_patch16_384"
        assert student.distillation.kind == tuned.distillation.kind == "hard"
