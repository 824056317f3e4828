"""Every experiment takes two steps, at reduced size: compiled, finite, and training its part.

The quick tests have one of them, to its result: tests/test_finetuning.py.
"""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

from deit_jax.training.freezing import trainable
from tests.config.reduced import describe, reduce, take_two_steps

ROOT = Path(__file__).parents[2]
FAMILIES = sorted(file.stem for file in (ROOT / "configs").glob("[a-z]*.py"))
EXPERIMENTS = [
    (family, argument)
    for family in FAMILIES
    for argument in importlib.import_module(f"configs.{family}").ARGUMENTS
]
DONE = set()

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize(("family", "argument"), EXPERIMENTS)
def test_two_steps(family, argument, folder):
    full = importlib.import_module(f"configs.{family}").get_config(argument)
    config = reduce(full, folder)
    # Experiments that differ in nothing but size are the same after the reduction.
    if describe(config) in DONE:
        return
    DONE.add(describe(config))
    before, after = take_two_steps(config)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before["params"], after["params"])
    frozen = jax.tree.map(lambda trained: not trained, trainable(after["params"], config))
    both = jax.tree.map(lambda a, b: a and b, moved, frozen)
    assert not any(jax.tree.leaves(both)), both
    heads = [key for key in ("head", "head_dist") if key in moved]
    assert all(any(jax.tree.leaves(moved[key])) for key in heads)
