"""Whatever happens to the files of a checkpoint, a wrong value is never restored."""

import gc
import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.checkpoints.manifest import _checksum
from deit_jax.runs.checkpoints.saved_weights import restore_parameters


def make_state(step):
    weights = jax.random.normal(jax.random.key(step), (40, 25))
    params = {"0": {"kernel": weights}, "bias": weights[0]}
    return {
        "step": jnp.int32(step),
        "params": params,
        "batch_stats": {"mean": weights[1]},
        "opt_state": optax.adam(1.0).init(params),
        "ema": {"params": jax.tree.map(lambda x: x * 2, params), "batch_stats": {}},
    }


# The arrays that Orbax did not need to know of any more leave no errors behind.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
ABSTRACT = jax.eval_shape(lambda: make_state(0))


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            metrics = {"top1": float(step)}
            checkpoints.save(step, make_state(step), meta={"seconds": step / 7}, metrics=metrics)
    yield directory
    gc.collect()


@pytest.fixture
def copy(saved, tmp_path):
    """Return a function that makes a fresh copy of a directory with steps 1 and 2."""

    def make():
        target = tmp_path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(saved, target)

    return make


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest_file(directory):
    """The one that holds the values."""
    return max(directory.glob("**/d/*"), key=lambda path: path.stat().st_size)


def flip_bit(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(data))


def restore(directory, caplog):
    """Restore; check that it is step 2, or step 1 with 2 set aside and the reason named."""
    caplog.clear()
    with caplog.at_level(logging.ERROR, "deit_jax"):
        restored = Checkpoints(directory).restore_latest(ABSTRACT)
    assert bits(restored.state) == bits(make_state(restored.step))
    assert restored.meta == {"seconds": restored.step / 7}
    found = sorted(path.name for path in directory.iterdir())
    if restored.step == 2:
        assert found == ["1", "2"]
        return ""
    assert found == ["1", "2.corrupt"]
    reasons = [r.getMessage() for r in caplog.records if "Set checkpoint 2 aside" in r.getMessage()]
    assert len(reasons) == 1
    return reasons[0].partition("2.corrupt: ")[2]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [halve, pathlib.Path.unlink])
def test_every_damaged_file_is_harmless_or_leads_to_the_step_before(saved, copy, caplog, damage):
    files = [p.relative_to(saved / "2") for p in sorted(saved.glob("2/**/*")) if p.is_file()]
    # The other parts have the same files; of those the one that says where everything else is.
    other = ("batch_stats", "ema", "training")
    files = [f for f in files if f.parts[0] not in other or f.parts[1:] == ("manifest.ocdbt",)]
    reasons = {}
    for file in files:
        directory = copy()
        damage(directory / "2" / file)
        reasons[file.as_posix()] = restore(directory, caplog)
    for item in ("params", *other):
        assert reasons[f"{item}/manifest.ocdbt"].startswith(f"{item} cannot be read: ")
    assert reasons["meta/metadata"].startswith("its manifest ")


@pytest.mark.parametrize("item", ["params", "ema", "batch_stats", "training", "meta"])
def test_whole_parts_may_be_missing(copy, caplog, item):
    directory = copy()
    shutil.rmtree(directory / "2" / item)
    expected = "its manifest cannot be read: " if item == "meta" else f"{item} cannot be read: "
    assert restore(directory, caplog).startswith(expected)


@pytest.mark.parametrize("item", ["params", "ema", "training"])
def test_lost_blocks_are_noticed(copy, caplog, item):
    directory = copy()
    # All of them: of an item of small arrays the largest may be one that Orbax has superseded.
    for data in (directory / "2" / item).glob("**/d/*"):
        data.write_bytes(bytes(data.stat().st_size))
    assert restore(directory, caplog).startswith(item)


@pytest.mark.slow
def test_flipped_bits_are_noticed(copy, caplog):
    rng = np.random.default_rng(0)
    reasons = []
    for _ in range(25):
        directory = copy()
        flip_bit(largest_file(directory / "2" / "params"), rng)
        # "" if the bit was one that no value depends on: the bits of the values were compared.
        reasons.append(restore(directory, caplog))
    assert all(reason.startswith("params") or not reason for reason in reasons)
    # Without the fingerprint these would have been restored as if nothing had happened.
    assert sum("does not match its fingerprint" in reason for reason in reasons) > 15


@pytest.mark.slow
def test_flipped_bits_in_the_manifest_are_noticed(copy, caplog):
    rng = np.random.default_rng(1)
    for _ in range(25):
        directory = copy()
        flip_bit(directory / "2" / "meta" / "metadata", rng)
        assert restore(directory, caplog).startswith("its manifest ")


def test_a_checkpoint_under_another_step_is_noticed(copy, caplog):
    directory = copy()
    shutil.rmtree(directory / "2")
    shutil.copytree(directory / "1", directory / "2")
    assert restore(directory, caplog) == "it was saved as step 1."


def test_an_empty_directory_is_not_taken_for_a_checkpoint(copy, caplog):
    directory = copy()
    (directory / "3").mkdir()
    restored = Checkpoints(directory).restore_latest(ABSTRACT)
    assert restored.step == 2
    assert (directory / "3.corrupt").is_dir()


def test_training_never_starts_again_silently(copy):
    directory = copy()
    for step in ("1", "2"):
        shutil.rmtree(directory / step / "params")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is intact \(2: params .*; 1: pa"):
        Checkpoints(directory).restore_latest(ABSTRACT)
    # Nothing was renamed: if a file system is missing, all of them look damaged.
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]
    shutil.rmtree(directory / "1")
    (directory / "2").rename(directory / "2.corrupt")
    with pytest.raises(ValueError, match=r"is intact \(2.corrupt\).*in a new --workdir"):
        Checkpoints(directory).restore_latest(ABSTRACT)


def test_training_goes_on_beside_what_was_set_aside(copy):
    directory = copy()
    for _ in range(2):
        shutil.rmtree(directory / "2" / "params")
        with Checkpoints(directory) as checkpoints:
            assert checkpoints.restore_latest(ABSTRACT).step == 1
            checkpoints.save(2, make_state(2), meta={"seconds": 2 / 7})
    assert Checkpoints(directory).restore_latest(ABSTRACT).step == 2
    found = sorted(path.name for path in directory.iterdir())
    assert found == ["1", "2", "2.corrupt", "2.corrupt+"]


def test_retention_never_deletes_what_it_cannot_read(copy):
    directory = copy()
    halve(directory / "1" / "meta" / "metadata")
    with Checkpoints(directory, keep_latest=1, keep_best=0) as checkpoints:
        assert checkpoints.restore_latest(ABSTRACT).step == 2
        checkpoints.save(3, make_state(3), meta={})
    assert sorted(path.name for path in directory.iterdir()) == ["1.corrupt", "3"]


def test_weights_of_a_damaged_checkpoint_are_refused(copy):
    directory = copy()
    halve(largest_file(directory / "2" / "params"))
    with pytest.raises(ValueError, match=r"2 is damaged: params .* choose another step"):
        restore_parameters(directory, "best")
    assert restore_parameters(directory, 1)[2]["step"] == 1
    # The other parts of it are not needed, and may be damaged.
    assert restore_parameters(directory, 2, "ema")[2]["step"] == 2
    halve(directory / "2" / "meta" / "metadata")
    assert restore_parameters(directory, "best")[2]["step"] == 1


def test_a_newer_format_is_not_damage(copy):
    directory = copy()
    path = directory / "2" / "meta" / "metadata"
    content = json.loads(path.read_text())
    content["format"] = 99
    del content["checksum"]
    path.write_text(json.dumps({**content, "checksum": _checksum(content)}))
    with pytest.raises(ValueError, match="written by another version of deit_jax"):
        Checkpoints(directory).restore_latest(ABSTRACT)
