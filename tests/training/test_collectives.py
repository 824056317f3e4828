"""On many devices nothing but sums crosses between them: what the compiled step says of itself."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from deit_jax.models import convolution
from deit_jax.training.setup import set_up
from tests.config.reduced import reduce

CROSSING = re.compile(
    r" (all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|all-reduce)"
    r"(?:-start)?\("
)
# Eight images on each device, four of which are mixed with each other: as on a GPU of eight.
BATCH, GROUP = 64, 4


def collectives(config):
    """Names of the operations by which devices exchange anything in a train step."""
    setup = set_up(config)
    rows = functools.partial(jax.ShapeDtypeStruct, (BATCH,), jnp.int32)
    batch = {name: rows() for name in ("label", "epoch", "index", "copy")}
    images = (BATCH, *setup.train_input.image_size, 3)
    batch["image"] = jax.ShapeDtypeStruct(images, jnp.uint8)
    teacher = jax.eval_shape(lambda: setup.teacher.params if setup.teacher else {})
    step = setup.train_step.lower(setup.abstract_state, teacher, batch).compile()
    return set(CROSSING.findall(step.as_text()))


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
    # As on GPUs and TPUs: on CPUs each group of a convolution is one of its own.
    grouped = functools.partial(convolution.convolve, form="native")
    monkeypatch.setattr(convolution, "convolve", grouped)
    family, _, what = experiment.partition(":")
    config = reduce(importlib.import_module(f"configs.{family}").get_config(what), tmp_path)
    config.training.batch_size = BATCH
    config.mix.group = GROUP
    assert collectives(config) == {"all-reduce"}
