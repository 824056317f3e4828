"""TFRecord data sets: the bytes that TensorFlow Datasets wrote, in its default format."""

import contextlib
import json
import os
import pickle
import struct

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

from deit_jax.cli.main import main
from deit_jax.data.formats.tfds import TfdsSource
from deit_jax.data.formats.tfds_records import find_records, read_tfrecord
from deit_jax.data.open import open_source
from deit_jax.data.source import require_same_classes
from deit_jax.data.stream.read_or_replace import DamagedRecordError, read_image
from tests.data.small_tfds import as_tfds_reads, as_tfrecords, prepare_three_classes


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return prepare_three_classes(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def tfrecords(directory, tmp_path_factory):
    root = tmp_path_factory.mktemp("tfrecord") / "tiny" / "1.0.0"
    return as_tfrecords(directory / "tiny" / "1.0.0", root)


def test_both_formats_are_the_same_data_set(directory, tfrecords):
    for split in ("train", "test"):
        ours = open_source("tfds", split, str(tfrecords))
        theirs = open_source("tfds", split, str(directory))
        require_same_classes(ours, theirs)
        assert (ours.name, len(ours)) == (theirs.name, len(theirs))
        for index in range(len(ours)):
            assert ours[index][:2] == theirs[index][:2]
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert pickle.loads(pickle.dumps(ours))[4] == ours[4]
    assert ours[4].name == "tiny-test.tfrecord-00001-of-00002[1]"


@pytest.mark.parametrize(
    "split",
    [
        # 12 and 5 records, in files of 3 and the rest. Of 12, 37.5 % are 4.5 and 62.5 % 7.5.
        "train[:10%]", "train[33%:66%]", "train[37.5%:62.5%]", "train[-25%:]", "train[:-10%]",
        "train[:3]", "train[3:]", "train[2:4]", "train[4:5]", "train[-4:-2]", "train[-12:12]",
        "train[90%:]+test[:2]", "test + train[5:7]", "train[6:]+train[:6]", "train+train[1:2]",
        "all", "train[3:3]+test", "train[:1_0]",
    ],
)  # fmt: skip
def test_slices_are_those_of_tensorflow_datasets(directory, tfrecords, split):
    expected = as_tfds_reads(directory, split)
    for place in (tfrecords, directory):
        source = open_source("tfds", split, str(place))
        found = pickle.loads(pickle.dumps(source))
        assert [found[index][:2] for index in range(len(found))] == expected
        assert source.labels.tolist() == [label for _, label in expected]


def test_slices_by_file_and_the_names_of_their_records(tfrecords):
    whole = open_source("tfds", "train", str(tfrecords))
    records = [whole[index] for index in range(12)]
    assert [record.name[-13:] for record in records[1:4]] == [
        "0-of-00002[1]", "0-of-00002[2]", "1-of-00002[0]",
    ]  # fmt: skip
    for split, part in {
        "train[0shard]": records[:3],
        "train[1shard:]": records[3:],
        "train[2:5]": records[2:5],
        "train[10:]+train[:1]": [*records[10:], records[0]],
    }.items():
        source = open_source("tfds", split, str(tfrecords))
        assert [source[index] for index in range(len(source))] == part, split


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation[:10%]", r"Unknown split 'validation'. Should be one of \['train', 'test'\]"),
        ("train[:13]", r"'train\[:13\]': Requested slice \[:13\] incompatible with 12 examples"),
        ("train[5:3]", r"'train\[5:3\]' holds no records"),
        ("train[:4%]", "holds no records"),
        *(
            (spec, "is no split: write train, ")
            for spec in ("", "train[3]", "all[:1]", "a b", "a+")
        ),
    ],
)
def test_impossible_slices_are_refused(directory, tfrecords, split, message):
    for place in (tfrecords, directory):
        with pytest.raises(ValueError, match=message):
            open_source("tfds", split, str(place))
    # Where TensorFlow Datasets does not refuse it, it reads nothing.
    with contextlib.suppress(ValueError, NotImplementedError):
        assert as_tfds_reads(directory, split) == []


@pytest.mark.slow
def test_a_tfrecord_data_set_is_prepared_by_one_command(tfrecords, tmp_path, capsys, monkeypatch):
    # Knowing all labels before the first image is written would take hours for a large one.
    labels = TfdsSource.labels
    monkeypatch.delattr(TfdsSource, "labels")
    output = tmp_path / "prepared"
    command = ["prepare", str(tfrecords.parent), str(output), "--splits=train,test", "--workers=1"]
    assert main(command) == 0
    monkeypatch.setattr(TfdsSource, "labels", labels, raising=False)
    assert "train: 12 images" in capsys.readouterr().out
    for split in ("train", "test"):
        before = open_source("tfds", split, str(tfrecords))
        after = open_source("prepared", split, str(output))
        assert [after[i] for i in range(len(after))] == [before[i] for i in range(len(before))]
        np.testing.assert_array_equal(after.labels, before.labels)


def test_a_data_set_in_both_formats_is_read_in_the_faster(tfrecords, directory, tmp_path):
    for file in [*(directory / "tiny" / "1.0.0").iterdir(), *tfrecords.iterdir()]:
        if not (tmp_path / file.name).exists():
            os.link(file, tmp_path / file.name)
    info = tmp_path / "dataset_info.json"
    # As `tfds convert_format` leaves it.
    content = json.loads(info.read_text()) | {
        "fileFormat": "tfrecord",
        "alternativeFileFormats": ["array_record"],
    }
    info.unlink()
    info.write_text(json.dumps(content))
    source = open_source("tfds", "train[:6]", str(tmp_path))
    assert len(source) == 6


def test_damage_is_found_by_its_checksum(tfrecords, tmp_path):
    for file in tfrecords.iterdir():
        os.link(file, tmp_path / file.name)
    path = tmp_path / "tiny-train.tfrecord-00001-of-00002"
    data = bytearray(path.read_bytes())
    where = find_records(path)
    path.unlink()
    data[where[2, 0] + 50] ^= 1
    path.write_bytes(data)
    source = open_source("tfds", "train", str(tmp_path))
    with pytest.raises(DamagedRecordError, match=r"tfrecord-00001-of-00002\[2\]: .* checksum"):
        read_image(source, 5)
    assert source.labels.tolist().count(-1) == 1
    for spoilt, message in (
        (data[:-10], "ends in the middle"),
        (data + b"123", "ends in the middle"),
        (data[:3] + b"\1" + data[4:], "damaged at byte 0"),
    ):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=message):
            open_source("tfds", "train", str(tmp_path))
    (tmp_path / "label.labels.txt").unlink()
    names = open_source("tfds", "test", str(tmp_path)).class_names
    assert names == ("0", "1", "2")


def test_records_are_found_by_length(tmp_path):
    path = tmp_path / "file"
    writer = RecordWriter(str(path))
    contents = [b"", b"a", bytes(1000), struct.pack("<Q", 7) * 3]
    for content in contents:
        writer.write(content)
    writer.close()
    assert [read_tfrecord(path, *row) for row in find_records(path).tolist()] == contents
