"""Checkpoints: what is kept, what is read again, and what is refused."""

import logging
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.checkpoints.saved_weights import restore_parameters
from tests.runs.checkpoints.states import (
    ABSTRACT,
    abstract,
    assert_same,
    make_small,
    make_state,
    names,
    save_all,
)


def test_returns_what_was_saved(tmp_path):
    state = make_state(3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_latest(ABSTRACT) is None
        assert checkpoints.save(3, state, meta={"seconds": 1.5, "pair": (1, 2)})
        restored = checkpoints.restore_latest(ABSTRACT)
    assert restored.step == 3
    assert restored.meta == {"seconds": 1.5, "pair": [1, 2]}
    assert_same(restored.state, state)


@pytest.mark.parametrize("saved_on, read_on", [(8, 1), (1, 8), (8, 8)])
def test_may_be_read_on_other_devices(tmp_path, saved_on, read_on):
    def spread(state, count):
        devices = np.array(jax.devices()[:count])
        mesh = jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))

        def put(x):
            spec = PartitionSpec("data") if x.shape[:1] == (16,) else PartitionSpec()
            return jax.device_put(x, NamedSharding(mesh, spec))

        return jax.tree.map(put, state)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, spread(make_state(1), saved_on), meta={})
    wanted = spread(make_state(1), read_on)
    restored = Checkpoints(tmp_path).restore_latest(abstract(wanted))
    assert_same(restored.state, wanted)
    kernel = restored.state["params"]["0"]["kernel"]
    assert len(kernel.sharding.device_set) == read_on
    assert kernel.addressable_shards[0].data.shape == (16 // read_on, 6)


def test_arrays_may_be_donated_while_they_are_written(tmp_path):
    step_function = jax.jit(lambda x: jax.tree.map(lambda a: a * 1.5 + 1, x), donate_argnums=0)
    weights = {"w": jnp.ones((256, 256))}
    expected = {}
    with Checkpoints(tmp_path, keep_latest=5) as checkpoints:
        for step in range(1, 6):
            weights = step_function(weights)
            expected[step] = np.array(weights["w"])
            checkpoints.save(step, {"params": weights}, meta={})
            weights = step_function(step_function(weights))
    for step, values in expected.items():
        np.testing.assert_array_equal(restore_parameters(tmp_path, step)[0]["w"], values)


def test_latest_stay_although_the_metric_gets_worse(tmp_path):
    save_all(tmp_path, [70.0, 60.0, 50.0, 40.0, 30.0], make_small, keep_latest=2, keep_best=1)
    assert names(tmp_path) == ["1", "4", "5"]
    assert Checkpoints(tmp_path).restore_latest(abstract(make_small(0))).step == 5


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    odd = float("nan"), float("inf"), -float("inf")
    save_all(tmp_path, [50.0, odd[0], odd[1], 40.0, odd[2]], make_small, keep_latest=1)
    assert names(tmp_path) == ["1", "5"]
    assert Checkpoints(tmp_path).best() == (1, 50.0)
    assert restore_parameters(tmp_path)[2]["step"] == 1


def test_steps_without_metric_are_only_kept_as_latest(tmp_path):
    save_all(tmp_path, [None, 10.0, None, None, None], make_small, keep_latest=2)
    assert names(tmp_path) == ["2", "4", "5"]


def test_several_best_and_every_so_many_steps(tmp_path):
    save_all(tmp_path, [5, 9, 9, 8, 1, 1, 1], make_small, keep_latest=1, keep_best=2, keep_every=4)
    assert names(tmp_path) == ["2", "3", "4", "7"]
    # Of equals the later one.
    assert Checkpoints(tmp_path).best() == (3, 9.0)


def test_best_survives_a_restart(tmp_path):
    save_all(tmp_path, [10.0, 80.0, 20.0], make_small, keep_latest=1)
    with Checkpoints(tmp_path, keep_latest=1) as checkpoints:
        assert checkpoints.best() == (2, 80.0)
        for step in (4, 5):
            checkpoints.save(step, make_small(step), meta={}, metrics={"top1": 30.0})
    assert names(tmp_path) == ["2", "5"]


def test_last_save_is_committed_when_an_exception_passes(tmp_path):
    with pytest.raises(KeyError, match="mine"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), meta={})
        raise KeyError("mine")
    assert_same(Checkpoints(tmp_path).restore_latest(ABSTRACT).state, make_state(1))


def test_a_step_saved_already_is_left_as_it_is(tmp_path):
    save_all(tmp_path, [1.0, 2.0])
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.save(2, make_state(7), meta={})
        with pytest.raises(ValueError, match="holds step 2, so step 1 cannot"):
            shutil.rmtree(tmp_path / "1")
            checkpoints.save(1, make_state(1), meta={})
    assert_same(Checkpoints(tmp_path).restore_latest(ABSTRACT).state, make_state(2))


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    save_all(tmp_path, [1.0])
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "1", tmp_path / "trash" / "0")
    assert Checkpoints(tmp_path).restore_latest(ABSTRACT).step == 1
    with Checkpoints(tmp_path):
        assert names(tmp_path) == ["1"]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Checkpoints of steps 1 and 2, to be read only."""
    save_all(folder := tmp_path_factory.mktemp("two_steps"), [1.0, 2.0])
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: s["params"]["0"].update(kernel=jnp.zeros((16, 7))),
            r"params/0/kernel is float32\[16, 6\] in the checkpoint but float32\[16, 7\] in the",
        ),
        (
            lambda s: s["params"].update(head=jnp.zeros((3, 3))),
            r"params/head is bfloat16\[3, 3\] in the checkpoint but float32\[3, 3\] in the model",
        ),
        (
            lambda s: s["params"].update(head_dist=jnp.zeros(3)),
            r"params/head_dist is absent in the checkpoint but float32\[3\] in the model",
        ),
        (
            lambda s: s.update(ema={}),
            r"ema/batch_stats/norm/mean is float32\[5\] .* absent in the model.*; and 1 more",
        ),
        (lambda s: s.update(opt_state=()), r"opt_state/1/.* is absent|absent in the model"),
    ],
    ids=["shape", "dtype", "missing", "left over", "optimiser"],
)
def test_another_model_is_named_and_not_taken_for_damage(two_steps, change, message):
    state = make_state(0)
    change(state)
    with pytest.raises(ValueError, match=message) as caught:
        Checkpoints(two_steps).restore_latest(abstract(state))
    assert "new --workdir" in str(caught.value)
    assert names(two_steps) == ["1", "2"]


def test_weights_are_read_without_the_optimiser(tmp_path):
    save_all(tmp_path, [10.0, 30.0, 20.0], keep_latest=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for which, step in {"best": 2, "latest": 3, 1: 1}.items():
        params, batch_stats, meta = restore_parameters(tmp_path, which)
        state = make_state(step)
        assert_same(params, state["params"])
        assert_same(batch_stats, state["batch_stats"])
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
        assert meta == {"at": step, "step": step, "metrics": meta["metrics"]}
        params, batch_stats, _ = restore_parameters(tmp_path, which, "ema")
        assert_same(params, state["ema"]["params"])
        assert_same(batch_stats, state["ema"]["batch_stats"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run called RUN has saved step 25."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder / "RUN" / "checkpoints") as checkpoints:
        checkpoints.save(25, make_state(25), meta={"seconds": 1.5}, metrics={"top1": 50.0})
    return folder


@pytest.mark.parametrize("item", ["params", "batch_stats", "ema"])
def test_plain_orbax_reads_them_as_documented(folder, monkeypatch, item):
    text = (pathlib.Path(__file__).parents[3] / "docs" / "weights.md").read_text(encoding="utf-8")
    code = re.search(r"with plain Orbax\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
    assert "deit_jax" not in code
    monkeypatch.chdir(folder)
    found = {}
    exec(code.replace('"params"', repr(item)), found)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found["params"]))
    assert_same(found["params"], make_state(25)[item])
    assert found["meta"]["step"] == 25
    assert found["meta"]["metrics"] == {"top1": 50.0}
    assert found["meta"]["arrays"]["params/0/kernel"][:2] == ["float32", [16, 6]]


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        restore_parameters(tmp_path / "nowhere")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1, ema=False) | {"batch_stats": {}}, meta={})
    with pytest.raises(ValueError, match="none is the best; choose 'latest'"):
        restore_parameters(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 5 .* one of the steps \[1\]"):
        restore_parameters(tmp_path, 5)
    with pytest.raises(ValueError, match=r"no moving average.*ema.decay=0"):
        restore_parameters(tmp_path, "latest", "ema")
    with pytest.raises(ValueError, match="'params' or 'ema', not 'raw'"):
        restore_parameters(tmp_path, "latest", "raw")
    assert restore_parameters(tmp_path, "latest")[1] == {}


def test_what_cannot_be_saved_is_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="params/w is a ndarray"):
            checkpoints.save(1, {"params": {"w": np.zeros(3)}}, meta={})
        with pytest.raises(ValueError, match=r"params/w has shape \(0, 3\)"):
            checkpoints.save(1, {"params": {"w": jnp.zeros((0, 3))}}, meta={})
        with pytest.raises(ValueError, match=r"'top1', which is not among the metrics \['top5'\]"):
            checkpoints.save(1, make_state(1), meta={}, metrics={"top5": 1.0})
    assert names(tmp_path) == []


def test_orbax_does_not_narrate(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        save_all(tmp_path, [1.0])
        Checkpoints(tmp_path).restore_latest(ABSTRACT)
    assert [r.getMessage() for r in caplog.records if "orbax" in r.pathname] == []


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="keep_latest must be at least 1"):
        Checkpoints(tmp_path, keep_latest=0)
