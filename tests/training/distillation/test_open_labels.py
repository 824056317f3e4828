"""Labels are taken for those of their own stream and teacher, and of nothing else."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deit_jax.training import setup as setups
from deit_jax.training.distillation import open_labels
from tests.training.labelled_runs import STEPS, refuse_loading, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


def test_a_teacher_that_is_gone_is_not_missed(labelled):
    weights, kept = labelled.teacher.weights, f"{labelled.teacher.weights}.kept"
    os.rename(weights, kept)
    try:
        assert run(labelled)[2]["computed"] == 0
        labelled.teacher.weights = ""
        assert setups.set_up(labelled).taught_by["weights"] == weights
        labelled.teacher.weights = "another"
        with pytest.raises(FileNotFoundError, match=r"'another', which cannot be read.*name that,"):
            setups.set_up(labelled)
        labelled.teacher.weights, labelled.teacher.ema = weights, True
        with pytest.raises(ValueError, match=r"teacher\.ema was False and is True here"):
            setups.set_up(labelled)
        labelled.teacher.ema = False
        parts = os.path.join(labelled.teacher.labels, "parts")
        os.unlink(os.path.join(parts, "00000001.safetensors"))
        with pytest.raises(ValueError, match=r"2 of 5 steps have no teacher's labels in .*cannot"):
            setups.set_up(labelled)
    finally:
        os.rename(kept, weights)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("training.batch_size", 16),
        ("data.repeats", 2),
        ("data.train_images", 500),
        ("augment.flip", 0.25),
        ("mix.group", 8),
        ("teacher.dtype", "bfloat16"),
        ("teacher.mean", (0.1, 0.2, 0.3)),
        ("distillation.kind", "soft"),
    ],
)
def test_labels_of_another_stream_are_refused_by_the_key(labelled, key, value):
    labelled.update_from_flattened_dict({key: value})
    named = {"data.train_images": "the data's images", "teacher.mean": "the teacher's mean"}
    with pytest.raises(ValueError, match=f"of another stream: {named.get(key, key)} was "):
        setups.set_up(labelled)


def test_another_teacher_is_refused_and_the_same_in_another_file_is_not(labelled, tmp_path):
    tensors = load_file(labelled.teacher.weights)
    labelled.teacher.weights = str(tmp_path / "renamed.safetensors")
    save_file(dict(reversed(tensors.items())), labelled.teacher.weights, {"format": "pt"})
    assert len(setups.set_up(labelled).lessons._labels.missing) == 0
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    save_file({**tensors, name: np.float32(1.001) * tensors[name]}, labelled.teacher.weights)
    with pytest.raises(ValueError, match="the teacher's weights was"):
        setups.set_up(labelled)


def test_anything_else_about_the_student_may_change(labelled, monkeypatch):
    monkeypatch.setattr(open_labels, "load_teacher", refuse_loading)
    labelled.update_from_flattened_dict(
        {
            "model.name": "deit_micro_patch4_16",
            "model.drop_path_rate": 0.3,
            "optimizer.name": "sgd",
            "optimizer.learning_rate": 0.1,
            "distillation.weight": 0.9,
            "ema.decay": 0.0,
            "training.label_smoothing": 0.0,
            "training.micro_batches": 2,
            "data.workers": 1,
            "data.max_damaged": 0.5,
            "log.every_steps": 2,
        }
    )
    assert run(labelled)[2] == {"directory": labelled.teacher.labels, "computed": 0, "read": STEPS}
