"""A run knows what it was made from, and says by name what of it is no longer the same."""

import copy
import json

import jax
import pytest
from safetensors.numpy import load_file, save_file

import deit_jax
from configs.digits import get_config
from deit_jax.api import create_model
from deit_jax.data.source import ArraySource
from deit_jax.runs.directory import open_run
from deit_jax.runs.made_from import changes, made_from
from deit_jax.training import setup as setups
from deit_jax.training.initial import load_initial

CONFIG = get_config("none")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "regnety_micro.safetensors"
    deit_jax.save_weights(create_model("regnety_micro"), path)
    return path


def taught(weights, **changes):
    config = get_config("hard")
    config.model.name = "deit_micro_distilled_patch4_16"
    config.teacher.update({"name": "regnety_micro", "weights": str(weights), **changes})
    config.teacher.mean = config.teacher.std = (0.5, 0.5, 0.5)
    return config


@pytest.fixture(scope="module")
def record(weights):
    """Of a run with a teacher, as it is read back."""
    return json.loads(json.dumps(made_from(setups.set_up(taught(weights)), None)))


def altered(record, **values):
    """The record with other values: `data__train__images=3`."""
    record = copy.deepcopy(record)
    for place, value in values.items():
        *parents, last = place.split("__")
        inner = record
        for key in parents:
            inner = inner[key]
        inner[last] = value
    return record


def test_the_record_says_what_the_run_is_made_from(record, weights):
    train = record["data"]["train"]
    assert (train["images"], train["classes"]) == (CONFIG.data.train_images, 10)
    assert record["teacher"]["weights"] == str(weights) and record["initial"] is None
    assert record["teacher"]["digest"] != record["teacher"]["folded"]
    assert record["devices"]["count"] == jax.device_count()


def test_another_teacher_of_the_same_name_is_seen(record, weights, tmp_path):
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, tmp_path / "other.safetensors")
    again = made_from(setups.set_up(taught(weights)), None)
    assert changes(record, again) == ([], [])
    other = made_from(setups.set_up(taught(tmp_path / "other.safetensors")), None)
    (phrase,) = changes(record, other).refused
    assert "the teacher" in phrase and "other weights" in phrase
    # The same weights, shown in another way.
    config = taught(weights)
    config.teacher.mean = (0.4, 0.5, 0.5)
    (phrase,) = changes(record, made_from(setups.set_up(config), None)).refused
    assert "normalisation" in phrase


def test_other_pixels_in_one_image_are_seen(record, weights, monkeypatch):
    original = setups.open_source

    def altered_source(kind, split, directory):
        source = original(kind, split, directory)
        images = source.images.copy()
        # One in ten; the run trains on a part of them.
        images[::10] = 255 - images[::10]
        return ArraySource(source.name, images, source.labels, source.class_names)

    monkeypatch.setattr(setups, "open_source", altered_source)
    found = changes(record, made_from(setups.set_up(taught(weights)), None))
    assert [phrase.split(":")[0] for phrase in found.refused] == [
        "the training data",
        "the evaluation data",
    ]


def test_weights_to_start_from_are_seen_only_where_they_are_read(tmp_path):
    config = get_config("none")
    config.model.name = "deit_micro_patch4_16"
    records = []
    for seed in (0, 1):
        path = tmp_path / "start.safetensors"
        deit_jax.save_weights(create_model(config.model.name, seed=seed), path, overwrite=True)
        config.model.weights = str(path)
        setup = setups.set_up(config)
        records.append(made_from(setup, load_initial(config, setup.abstract_state)))
    assert "start.safetensors" in changes(*records).refused[0]
    assert changes(records[0], made_from(setup, None)) == ([], [])


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ({"data__train__images": 577, "data__train__records": ""}, "training data: 577 -> 50 im"),
        ({"data__eval__classes": 9, "data__eval__records": ""}, "evaluation data: 9 -> 10 cl"),
        ({"data__train__records": ""}, "training data: other names, sizes or labels"),
        ({"data__train__contents": ""}, "training data: other contents under the same names"),
        ({"teacher__step": 40, "teacher__digest": ""}, "step 40 -> None, other weights"),
    ],
    ids=str,
)
def test_changes_are_refused_by_name_and_possible_when_asked_for(
    record, tmp_path, caplog, before, message
):
    saved = altered(record, **before)
    open_run(tmp_path, CONFIG, made_from=saved).close()
    written = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"made from something else .*--allow_config") as caught:
        open_run(tmp_path, CONFIG, made_from=record)
    assert message in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == written
    open_run(tmp_path, CONFIG, made_from=record, allow_config_change=True).close()
    assert message in caplog.text
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["made_from"] == record and message in content["history"][0]["replaced"][0]
    open_run(tmp_path, CONFIG, made_from=record).close()


def test_other_devices_are_told_and_hold_up_nothing(record, tmp_path, caplog):
    saved = altered(record, devices={"kind": "TPU v4", "count": 16, "processes": 2})
    open_run(tmp_path, CONFIG, made_from=saved).close()
    for _ in range(2):
        open_run(tmp_path, CONFIG, made_from=record).close()
    (line,) = [r.message for r in caplog.records]
    assert "16 x TPU v4 in 2 process(es) -> 8 x cpu in 1 process(es)" in line


def test_a_state_that_is_split_otherwise_is_told(record):
    split = altered(record, devices__fsdp=4)
    (phrase,) = changes(split, record).warned
    assert phrase == "8 x cpu in 1 process(es), fsdp 4 -> 8 x cpu in 1 process(es)"
    # Before the key every device had a copy.
    older = altered(record)
    del older["devices"]["fsdp"]
    assert changes(older, record).warned == []
    assert changes(older, split).warned


def test_a_run_without_a_record_goes_on_and_has_one(record, tmp_path, caplog):
    open_run(tmp_path, CONFIG).close()
    for _ in range(2):
        open_run(tmp_path, CONFIG, made_from=record).close()
    (line,) = [r.message for r in caplog.records]
    assert "older than the record of what a run was made from" in line
    assert json.loads((tmp_path / "config.json").read_text())["made_from"] == record


def test_an_empty_record_stops_nothing(record):
    assert changes({}, record) == ([], [])
    halves = {"data": {"train": {}}, "teacher": {}, "initial": 3, "devices": {}}
    assert changes(halves, record) == ([], [])
