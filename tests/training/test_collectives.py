"""On many devices nothing but sums crosses between them: what the compiled step says of itself."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from deit_jax.models import convolution
from deit_jax.sharding import split_over_batch
from deit_jax.training.setup import set_up
from tests.config.reduced import reduce

CROSSING = re.compile(
    r" (all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|all-reduce)"
    r"(?:-start)?\("
)
# Eight images on each device, four of which are mixed with each other: as on a GPU of eight.
BATCH, GROUP = 64, 4


def crossing(step, *arguments):
    """Names of the operations by which devices exchange anything in a step."""
    return set(CROSSING.findall(step.lower(*arguments).compile().as_text()))


def rows(setup, *names):
    """A batch's images and numbers, split over the devices."""

    def split(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=split_over_batch(setup.mesh))

    images = (BATCH, *setup.train_input.image_size, 3)
    numbers = {name: split((BATCH,), jnp.int32) for name in names}
    return numbers | {"image": split(images, jnp.uint8)}


def reduced(experiment, folder, monkeypatch):
    """Everything of an experiment, its groups convolved as on GPUs and TPUs: all at once."""
    grouped = functools.partial(convolution.convolve, form="native")
    monkeypatch.setattr(convolution, "convolve", grouped)
    family, _, what = experiment.partition(":")
    config = reduce(importlib.import_module(f"configs.{family}").get_config(what), folder)
    config.training.batch_size = BATCH
    config.mix.group = GROUP
    return set_up(config)


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
    teacher = jax.eval_shape(lambda: setup.teacher.params if setup.teacher else {})
    batch = rows(setup, "label", "epoch", "index", "copy")
    assert crossing(setup.train_step, setup.abstract_state, teacher, batch) == {"all-reduce"}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["teacher:regnety_160", "distill:tiny,hard"])
def test_nothing_but_sums_crosses_in_evaluation(
    experiment, tmp_path, monkeypatch, eight_devices, quick_compilation
):
    setup = reduced(experiment, tmp_path, monkeypatch)
    arrays = (setup.abstract_state["params"], setup.abstract_state["batch_stats"])
    batch = rows(setup, "label")
    batch["mask"] = jax.ShapeDtypeStruct((BATCH,), bool, sharding=batch["label"].sharding)
    assert crossing(setup.eval_step, *arrays, batch) == {"all-reduce"}
