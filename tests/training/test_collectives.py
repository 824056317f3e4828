"""On many devices nothing but sums crosses between them: what the compiled step says of itself.

Where the state is split over them, parameters are gathered too, and gradients scattered: never
anything of a batch.
"""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from deit_jax.models import convolution
from deit_jax.models.layer_norm import layer_norm
from deit_jax.sharding import batch_split_over, split_over_batch, state_shardings
from deit_jax.training.setup import set_up
from tests.config.reduced import reduce

CROSSING = re.compile(
    r" = (.*) "
    r"(all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|all-reduce)"
    r"(?:-start)?\("
)
SHAPE = re.compile(r"\w+\[([0-9,]*)\]")
# Eight images on each device, four of which are mixed with each other: as on a GPU of eight.
BATCH, GROUP = 64, 4


def crossing(step, *arguments):
    """(name, shapes) of the operations by which devices exchange anything in a step.

    Of one that consists of several programs: of these as one.
    """
    lines = CROSSING.findall(jax.jit(step).lower(*arguments).compile().as_text())
    return [
        (name, [tuple(int(n) for n in shape.split(",") if n) for shape in SHAPE.findall(results)])
        for results, name in lines
    ]


def assert_nothing_but_sums(found):
    assert {name for name, _ in found} == {"all-reduce"}


def assert_only_parameters_are_gathered(found, *trees):
    """Beside sums; a gather of them, of which each device holds a part, gives their shapes."""
    names = {name for name, _ in found}
    assert {"all-gather"} < names <= {"all-gather", "all-reduce", "reduce-scatter"}
    held = {leaf.shape for leaf in jax.tree.leaves(trees)}
    for name, shapes in found:
        assert name != "all-gather" or set(shapes) <= held, shapes


def rows(setup, *names):
    """A batch's images and numbers, split over the devices."""

    def split(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=split_over_batch(setup.mesh))

    images = (BATCH, *setup.train_input.image_size, 3)
    numbers = {name: split((BATCH,), jnp.int32) for name in names}
    return numbers | {"image": split(images, jnp.uint8)}


def reduced(experiment, folder, monkeypatch, **changes):
    """Everything of an experiment, its groups convolved as on GPUs and TPUs: all at once."""
    grouped = functools.partial(convolution.convolve, form="native")
    monkeypatch.setattr(convolution, "convolve", grouped)
    family, _, what = experiment.partition(":")
    config = reduce(importlib.import_module(f"configs.{family}").get_config(what), folder)
    config.training.batch_size = BATCH
    config.mix.group = GROUP
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return set_up(config)


def teacher_of(setup):
    """Shapes of its parameters, placed as in a run."""
    params = setup.teacher.params if setup.teacher else {}
    return jax.tree.map(
        lambda x, split: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split),
        params,
        state_shardings(params, setup.mesh),
    )


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param("distill:tiny,hard", marks=pytest.mark.slow),
        *[
            pytest.param(name, marks=pytest.mark.full)
            for name in (
                "teacher:regnety_160",
                "deit:small",
                "deit3:small",
                "cosub:small",
                "distill:tiny,soft,class_token",
                "finetune:384,hard",
                "linear:small",
                "scratch:hard",
            )
        ],
    ],
)
def test_nothing_but_sums_crosses(
    experiment, tmp_path, monkeypatch, eight_devices, quick_compilation
):
    setup = reduced(experiment, tmp_path, monkeypatch)
    batch = rows(setup, "label", "epoch", "index", "copy")
    arguments = (setup.abstract_state, teacher_of(setup), batch)
    assert_nothing_but_sums(crossing(setup.train_step, *arguments))


def test_the_gradients_of_a_normalisation_are_summed(eight_devices):
    """In bfloat16, of which the rows are kept as on accelerators."""

    def gradients(x, scale, shift):
        with batch_split_over(eight_devices):
            return jax.grad(lambda *affine: layer_norm(x, *affine).sum(), (0, 1))(scale, shift)

    split = split_over_batch(eight_devices)
    x = jax.ShapeDtypeStruct((64, 8), jnp.bfloat16, sharding=split)
    vector = jax.ShapeDtypeStruct((8,), jnp.float32)
    assert_nothing_but_sums(crossing(gradients, x, vector, vector))


@pytest.mark.full
@pytest.mark.parametrize(
    ("experiment", "fsdp", "micro_batches"),
    [
        ("distill:tiny,hard", 4, 1),
        ("distill:tiny,hard", 8, 1),
        ("deit:small", 4, 4),
        ("deit3:small", 8, 4),
        ("cosub:small", 4, 1),
        ("teacher:regnety_160", 8, 1),
        ("finetune:384,hard", 2, 1),
        ("linear:small", 4, 1),
    ],
)
def test_only_parameters_are_gathered_where_each_device_holds_a_part(
    experiment, fsdp, micro_batches, tmp_path, monkeypatch, eight_devices, quick_compilation
):
    changes = {"mesh__fsdp": fsdp, "training__micro_batches": micro_batches, "mix__group": 2}
    setup = reduced(experiment, tmp_path, monkeypatch, **changes)
    batch, teacher = rows(setup, "label", "epoch", "index", "copy"), teacher_of(setup)
    found = crossing(setup.train_step, setup.abstract_state, teacher, batch)
    assert_only_parameters_are_gathered(found, setup.abstract_state["params"], teacher)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "fsdp"),
    [
        ("teacher:regnety_160", 1),
        ("distill:tiny,hard", 1),
        pytest.param("teacher:regnety_160", 8, marks=pytest.mark.full),
        pytest.param("distill:tiny,hard", 4, marks=pytest.mark.full),
    ],
)
def test_nothing_but_sums_crosses_in_evaluation(
    experiment, fsdp, tmp_path, monkeypatch, eight_devices, quick_compilation
):
    setup = reduced(experiment, tmp_path, monkeypatch, mesh__fsdp=fsdp)
    arrays = (setup.abstract_state["params"], setup.abstract_state["batch_stats"])
    batch = rows(setup, "label")
    batch["mask"] = jax.ShapeDtypeStruct((BATCH,), bool, sharding=batch["label"].sharding)
    found = crossing(setup.eval_step, *arrays, batch)
    if fsdp == 1:
        assert_nothing_but_sums(found)
    else:
        assert_only_parameters_are_gathered(found, arrays)
