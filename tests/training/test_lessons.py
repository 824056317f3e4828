"""A run with kept labels ends with the bits of the run with the teacher inside.

On CPUs all three take their steps by the same programs.
"""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.digits import get_config
from deit_jax.training import loop
from deit_jax.training.distillation import label_store, open_labels
from deit_jax.training.lessons import Lessons
from tests.training.labelled_runs import STEPS, configure, refuse_loading, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation", "small_parts", "programs_made_once"),
]


def assert_same(*runs):
    """Of runs: equal to the bit, all but the record of labels."""
    bits, loss, _ = runs[0]
    assert [other[:2] for other in runs[1:]] == [(bits, loss)] * (len(runs) - 1)


def dies_at(step, monkeypatch, config, workdir):
    """Begin a run that is killed before a step."""
    take = Lessons.take

    def die(self, at, *arguments):
        if at == step:
            raise KeyboardInterrupt
        return take(self, at, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Lessons, "take", die)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, str(workdir))


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_inside_filling_and_reading_are_the_same_bits_on_any_number_of_devices(
    kind, devices, folder, monkeypatch, on_devices, optimised_compilation
):
    labelled = configure(folder, kind, f"{kind}-{devices}")
    # Classes are those of other numbers of devices too; logits differ in their last bits.
    on_devices(2 if kind == "hard" else devices)
    assert run(labelled, stop=3)[2]["computed"] == 3
    on_devices(devices)
    filled = run(labelled)
    assert filled[2]["computed"] == 2 and filled[2]["read"] == 3
    with monkeypatch.context() as patched:
        patched.setattr(open_labels, "load_teacher", refuse_loading)
        read = run(labelled)
    assert read[2]["read"] == STEPS
    assert_same(run(configure(folder, kind)), filled, read)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_the_whole_hard_run_of_the_demo_ends_with_the_same_digest(
    tmp_path, monkeypatch, on_devices, optimised_compilation
):
    """2,083 steps; filling and reading are killed on the way."""
    teacher, config = get_config("teacher"), get_config("hard")
    teacher.schedule.epochs, teacher.schedule.warmup_epochs = 200.0, 20.0
    loop.train(teacher, str(tmp_path / "teacher"))
    config.teacher.weights = str(tmp_path / "teacher")
    inside = loop.train(config, str(tmp_path / "inside"))
    config.teacher.labels = str(tmp_path / "labels")
    for name in ("filling", "reading"):
        dies_at(700, monkeypatch, config, tmp_path / name)
    results = [loop.train(config, str(tmp_path / name)) for name in ("filling", "reading")]
    assert [result["digest"] for result in results] == [inside["digest"]] * 2
    # What was lost with the process is computed once more.
    assert results[0]["labels"]["computed"] + results[1]["labels"]["computed"] < 2083 + 400


def test_labels_are_read_by_position_instead_of_asking_the_teacher(folder, monkeypatch, on_devices):
    labelled = configure(folder, "hard", "hard-pieces")
    inside = run(configure(folder, "hard"))
    on_devices(2)
    assert run(labelled, stop=3)[2]["computed"] == 3
    on_devices(1)
    filled = run(labelled)
    assert filled[2]["computed"] == 2 and filled[2]["read"] == 3
    monkeypatch.setattr(open_labels, "load_teacher", refuse_loading)
    read = run(labelled)
    assert read[2]["read"] == STEPS
    assert_same(inside, filled, read)


def test_the_largest_logits_are_the_same_whether_kept_or_not(folder, on_devices):
    some = {"teacher__labels_top": 5}
    inside = run(configure(folder, "soft", **some))
    filled = run(configure(folder, "soft", "soft-top", **some))
    read = run(configure(folder, "soft", "soft-top", **some))
    assert filled[2]["computed"] == read[2]["read"] == STEPS
    assert_same(inside, filled, read)
    # Five of ten logits say nearly all that this teacher knows.
    whole = run(configure(folder, "soft", "soft-all"))
    assert inside[0] != whole[0] and inside[1] == pytest.approx(whole[1], rel=1e-3)


def test_what_is_damaged_or_gone_is_computed_again(labelled, tmp_path, caplog):
    whole = run(labelled)
    assert whole[2] == {"directory": labelled.teacher.labels, "computed": 0, "read": STEPS}
    parts = tmp_path / "labels" / "parts"
    (parts / "00000000.safetensors").unlink()
    # This is not seen before it is read.
    answers = load_file(parts / "00000001.safetensors")
    damaged = bytearray((parts / "00000001.safetensors").read_bytes())
    damaged[-1] ^= 1
    (parts / "00000001.safetensors").write_bytes(damaged)
    again = run(labelled)
    assert again[:2] == whole[:2]
    assert again[2]["computed"] == 4
    for name, array in load_file(parts / "00000001.safetensors").items():
        np.testing.assert_array_equal(array, answers[name])
    assert "00000001.safetensors is damaged" in caplog.text
    assert run(labelled)[2]["computed"] == 0


def test_a_disk_that_is_full_costs_the_labels_and_not_the_run(
    labelled, tmp_path, monkeypatch, caplog
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    whole = run(labelled)
    labelled.teacher.labels = str(tmp_path / "full")
    monkeypatch.setattr(label_store, "save_file", full)
    filled = run(labelled)
    assert filled[:2] == whole[:2] and filled[2]["computed"] == STEPS
    assert "labels of the teacher were not kept" in caplog.text


def test_a_run_that_was_killed_ends_the_same_and_its_result_counts_labels(
    labelled, tmp_path, monkeypatch
):
    labelled.teacher.labels = str(tmp_path / "killed")
    dies_at(3, monkeypatch, labelled, tmp_path / "first")
    first = loop.train(labelled, str(tmp_path / "first"))
    assert first["labels"] == {"directory": f"{tmp_path}/killed", "computed": 5, "read": 0}
    monkeypatch.setattr(open_labels, "load_teacher", refuse_loading)
    second = loop.train(labelled, str(tmp_path / "second"))
    assert second["labels"] == {"directory": f"{tmp_path}/killed", "computed": 0, "read": 5}
    assert second["teacher"] == first["teacher"] and second["digest"] == first["digest"]
    # Where the labels are may change; a run that goes on does not need them all.
    labelled.teacher.labels = str(tmp_path / "elsewhere")
    os.rename(tmp_path / "killed", tmp_path / "elsewhere")
    assert loop.train(labelled, str(tmp_path / "second"))["digest"] == second["digest"]
