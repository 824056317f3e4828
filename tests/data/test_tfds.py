"""A small data set prepared by TensorFlow Datasets, read without TensorFlow."""

import io
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from deit_jax.data.options import EvalInput
from deit_jax.data.pipeline import eval_batches
from deit_jax.data.sources import open_source, subset

tfds = pytest.importorskip("tensorflow_datasets")


def jpeg(number):
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def prepared(directory, label):
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": label,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(5)}

        def _generate_examples(self, count=0):
            for i in range(count):
                yield i, {"image": io.BytesIO(jpeg(i)), "label": i % 3}

    Tiny(data_dir=str(directory), file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    classes = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    return prepared(tmp_path_factory.mktemp("tfds"), classes)


def test_records_are_the_bytes_that_went_in(directory):
    source = open_source("tfds", "train", str(directory))
    assert (source.name, len(source), source.num_classes) == ("tiny/train", 12, 3)
    assert source.class_names == ("ant", "bee", "cat")
    records = [source[i] for i in range(12)]
    assert {(r.image, r.label) for r in records} == {(jpeg(i), i % 3) for i in range(12)}
    assert source.labels.tolist() == [r.label for r in records]
    assert records[5].name == "tiny/train[5]"
    assert "tensorflow" not in sys.modules


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
    options = EvalInput(image_size=(16, 16), batch_size=4)
    with eval_batches(source, options) as batches:
        labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]


def test_unsuitable_data_sets_are_refused(directory, tmp_path):
    with pytest.raises(ValueError, match="no split 'validation': use train, test"):
        open_source("tfds", "validation", str(directory))
    with pytest.raises(FileNotFoundError, match="No prepared data set"):
        open_source("tfds", "train", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="No prepared data set"):
        open_source("tfds", "train")
    regression = prepared(tmp_path / "regression", tfds.features.Scalar(dtype=np.int64))
    with pytest.raises(ValueError, match="a label that is a class"):
        open_source("tfds", "train", str(regression))
    for version in ("1.0.0", "2.0.0"):
        shutil.copytree(directory / "tiny" / "1.0.0", tmp_path / "several" / "tiny" / version)
    with pytest.raises(FileNotFoundError, match=r"name one: tiny/1\.0\.0, tiny/2\.0\.0"):
        open_source("tfds", "train", str(tmp_path / "several"))
    # What most prepared data sets are today.
    description = tmp_path / "several" / "tiny" / "2.0.0" / "dataset_info.json"
    described = json.loads(description.read_text()) | {"fileFormat": "tfrecord"}
    description.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="not in ArrayRecord format"):
        open_source("tfds", "train", str(description.parent))
