"""A small data set prepared by TensorFlow Datasets, read without TensorFlow."""

import json
import pickle
import shutil
import sys

import numpy as np
import pytest

from deit_jax.data.combined import subset
from deit_jax.data.open import open_source
from deit_jax.data.stream.loader import eval_batches
from tests.data.small_tfds import (
    as_tfds_reads,
    as_tfrecords,
    jpeg,
    prepare_three_classes,
)
from tests.inputs import eval_input


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return prepare_three_classes(tmp_path_factory.mktemp("tfds"))


def test_records_are_the_bytes_that_went_in(directory):
    source = open_source("tfds", "train", str(directory))
    assert (source.name, len(source), source.num_classes) == ("tiny/train", 12, 3)
    assert source.class_names == ("ant", "bee", "cat")
    records = [source[i] for i in range(12)]
    assert {(r.image, r.label) for r in records} == {(jpeg(i), i % 3) for i in range(12)}
    assert [r[:2] for r in records] == as_tfds_reads(directory, "train")
    assert source.labels.tolist() == [r.label for r in records]
    assert records[5].name == "tiny-train.array_record-00000-of-00001[5]"
    assert "tensorflow" not in sys.modules


def test_file_names_are_kept(tmp_path):
    prepare_three_classes(tmp_path, file_names=True)
    source = open_source("tfds", "train", str(tmp_path))
    records = [source[i] for i in range(12)]
    assert {(r.name, r.image) for r in records} == {
        (f"tiny_{i:08}.JPEG", jpeg(i)) for i in range(12)
    }
    as_tfrecords(tmp_path / "tiny" / "1.0.0", tmp_path / "tfrecord")
    same = open_source("tfds", "train", str(tmp_path / "tfrecord"))
    assert [same[i] for i in range(12)] == records


def test_directories_above_and_slices_work_and_pickles_are_small(directory):
    version = directory / "tiny" / "1.0.0"
    for place in (directory, directory / "tiny", version):
        assert len(open_source("tfds", "test", str(place))) == 5
    assert len(open_source("tfds", "train[:50%]", str(version))) == 6
    source = open_source("tfds", "train", str(version))
    source.labels  # noqa: B018 - fills the cache, which must not travel
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[7] == source[7]


def test_batches(directory):
    source = subset(open_source("tfds", "train", str(directory)), 6, seed=0)
    options = eval_input(image_size=(16, 16), batch_size=4)
    with eval_batches(source, options) as batches:
        labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]


def test_unsuitable_data_sets_are_refused(directory, tmp_path):
    with pytest.raises(ValueError, match=r"Unknown split 'validation'\. Should be one"):
        open_source("tfds", "validation", str(directory))
    with pytest.raises(FileNotFoundError, match="No prepared data set"):
        open_source("tfds", "train", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="No prepared data set"):
        open_source("tfds", "train")
    for version in ("1.0.0", "2.0.0"):
        shutil.copytree(directory / "tiny" / "1.0.0", tmp_path / "several" / "tiny" / version)
    with pytest.raises(FileNotFoundError, match=r"name one: tiny/1\.0\.0, tiny/2\.0\.0"):
        open_source("tfds", "train", str(tmp_path / "several"))
    description = tmp_path / "several" / "tiny" / "2.0.0" / "dataset_info.json"
    described = json.loads(description.read_text()) | {"fileFormat": "tfrecord"}
    description.write_text(json.dumps(described))
    with pytest.raises(FileNotFoundError, match="lacks 1 of 1 files of 'train'"):
        open_source("tfds", "train", str(description.parent))
