"""A small data set as TensorFlow Datasets prepares it."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboardX.record_writer import RecordWriter

tfds = pytest.importorskip("tensorflow_datasets")


def jpeg(number):
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def a_jpeg():
    return tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")


def prepare(directory, label, *, file_names=False, image=None, content=None):
    """Writes 12 images for training and 5 to test, of three classes, as ArrayRecord.

    `image` is another feature in place of a JPEG; `content` gives the image and label of a number.
    """

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": image or a_jpeg(), "label": label}
            if file_names:
                features["file_name"] = tfds.features.Text()
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(5)}

        def _generate_examples(self, count=0):
            for i in range(count):
                name = {"file_name": f"tiny_{i:08}.JPEG"} if file_names else {}
                image_i, label_i = content(i) if content else (io.BytesIO(jpeg(i)), i % 3)
                yield i, {"image": image_i, "label": label_i, **name}

    Tiny(data_dir=str(directory), file_format="array_record").download_and_prepare()
    return directory


def prepare_three_classes(directory, **options):
    """As `prepare`, with named classes."""
    return prepare(directory, tfds.features.ClassLabel(names=["ant", "bee", "cat"]), **options)


def as_tfds_reads(directory, split):
    """Image and label of each record of a split, as TensorFlow Datasets itself reads them."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(str(directory / "tiny" / "1.0.0"))
    source = builder.as_data_source(split, decoders=decoders)
    return [(source[i]["image"], int(source[i]["label"])) for i in range(len(source))]


def as_tfrecords(before, root):
    """The records of a prepared data set in TFRecord files of two shards, as older ones are."""
    from array_record.python.array_record_module import ArrayRecordReader

    root.mkdir(parents=True)
    for name in ("features.json", "label.labels.txt"):
        if (before / name).is_file():
            (root / name).write_bytes((before / name).read_bytes())
    info = json.loads((before / "dataset_info.json").read_text())
    del info["fileFormat"]
    for split in info["splits"]:
        split["shardLengths"] = ["3", str(int(split["shardLengths"][0]) - 3)]
    (root / "dataset_info.json").write_text(json.dumps(info))
    for split in ("train", "test"):
        (file,) = before.glob(f"*-{split}.array_record-*")
        records = ArrayRecordReader(str(file)).read_all()
        for shard, part in enumerate((records[:3], records[3:])):
            writer = RecordWriter(str(root / f"tiny-{split}.tfrecord-{shard:05}-of-00002"))
            for record in part:
                writer.write(record)
            writer.close()
    return root
