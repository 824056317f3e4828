"""What TensorFlow Datasets says of a data set is compared with what is read, in both formats."""

import io
import json
import shutil

import pytest

from deit_jax.data.open import open_source
from deit_jax.data.stream.read_or_replace import read_image
from tests.data.formats.tfds_formats import FORMATS, both, features, refusal
from tests.data.small_tfds import as_tfds_reads, as_tfrecords, jpeg, prepare_three_classes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    prepare_three_classes(folder / "array_record")
    as_tfrecords(folder / "array_record" / "tiny" / "1.0.0", folder / "tfrecord" / "tiny" / "1.0.0")
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    """Returns a function: (format) -> a copy of the folder of the version."""
    shutil.copytree(tiny, tmp_path / "copy")
    return lambda name: tmp_path / "copy" / name / "tiny" / "1.0.0"


def last_of_train(folder):
    return sorted(folder.glob("tiny-train.*"))[-1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_or_renamed_file_is_named(copy, name):
    folder = copy(name)
    path = last_of_train(folder)
    # One of another data set with the same number does not take its place.
    path.rename(folder / path.name.replace("tiny", "other"))
    message = refusal(folder)
    assert message.startswith(f"{folder} lacks 1 of {1 if name == 'array_record' else 2} files of ")
    assert path.name in message
    assert len(open_source("tfds", "test", str(folder))) == 5


@pytest.mark.parametrize("name", FORMATS)
def test_files_with_other_records_than_described_are_refused(copy, name):
    folder = copy(name)
    path = last_of_train(folder)
    described = 12 if name == "array_record" else 9
    # A whole file, of another split or data set.
    shutil.copy(sorted(folder.glob("tiny-test.*"))[-1], path)
    found = 5 if name == "array_record" else 2
    assert refusal(folder).startswith(
        f"{path} holds {found} records, but dataset_info.json says {described}: it is incomplete "
    )


REASONS = {
    ("array_record", "empty"): "damaged or incomplete: ArrayRecord file should be at least 64KB",
    ("array_record", "shortened"): "damaged or incomplete: Invalid Riegeli/records file: chunk bou",
    ("array_record", "halved"): "holds 0 records, but dataset_info.json says 12: it is incomplete",
    ("array_record", "longer"): "damaged or incomplete: Invalid chunk boundary",
    ("tfrecord", "empty"): "holds 0 records, but dataset_info.json says 9: it is incomplete",
    ("tfrecord", "shortened"): "ends in the middle of a record",
    ("tfrecord", "halved"): "ends in the middle of a record",
    ("tfrecord", "longer"): "ends in the middle of a record",
}


@pytest.mark.parametrize(("name", "how"), REASONS)
def test_the_reason_of_a_damaged_file_is_told(copy, name, how):
    folder = copy(name)
    path = last_of_train(folder)
    data = path.read_bytes()
    half = len(data) // 2
    spoilt = {"empty": b"", "shortened": data[:-10], "halved": data[:half], "longer": data + b"123"}
    path.write_bytes(spoilt[how])
    message = refusal(folder)
    assert str(path) in message
    assert REASONS[name, how] in message
    # A part that needs nothing of that file can be read where there are several.
    if name == "tfrecord":
        assert len(open_source("tfds", "train[:3]", str(folder))) == 3


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("labels", "label", "why"),
    [
        (lambda i: -1, -1, "as in splits published without labels, which cannot be used"),
        (lambda i: 7 if i % 3 else 0, 7, "files and their description do not belong together"),
    ],
)
def test_labels_that_are_no_class_are_found_when_it_is_opened(tmp_path, name, labels, label, why):
    # Written with more classes, as nothing else would let these labels through.
    eight = features.ClassLabel(num_classes=8)
    folder = both(tmp_path, eight, content=lambda i: (io.BytesIO(jpeg(i)), labels(i)))
    folder = folder / name / "tiny" / "1.0.0"
    for path in folder.glob("label.labels.txt"):
        path.unlink()
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"numClasses": "8"', '"numClasses": "3"'))
    message = refusal(folder)
    assert f"of tiny/train has the label {label}, which is none of the 3 classes" in message
    assert why in message


def test_a_label_beyond_those_tried_stops_reading_by_name(tiny, monkeypatch):
    monkeypatch.setattr("deit_jax.data.formats.tfds._LABELS_TRIED", 2)
    source = open_source("tfds", "train", str(tiny / "tfrecord"))
    wrong = next(i for i in range(1, 11) if source[i].label == 2)
    source.class_names = ("ant", "bee")
    with pytest.raises(
        ValueError, match=r"tfrecord-0000\d-of-00002\[\d\] has label 2, but tiny/tr"
    ):
        read_image(source, wrong)
    with pytest.raises(ValueError, match="label 2, which is none of the 2 classes"):
        assert source.labels is None


@pytest.mark.parametrize("name", FORMATS)
def test_the_description_itself_may_be_damaged(copy, name):
    folder = copy(name)
    info = json.loads((folder / "dataset_info.json").read_text())
    for content, message in [
        ({**info, "fileFormat": "riegeli"}, "is in riegeli format, which cannot be read"),
        ({**info, "splits": 3}, "dataset_info.json is damaged: it does not describe splits"),
        ([], "dataset_info.json is damaged: it is no description"),
    ]:
        (folder / "dataset_info.json").write_text(json.dumps(content))
        assert message in refusal(folder)
    (folder / "dataset_info.json").write_text(json.dumps(info)[:-5])
    assert "dataset_info.json is damaged or no JSON: " in refusal(folder)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("ant\nbee\n")
    assert "label.labels.txt names 2 classes, but features.json has 3." in refusal(folder)
    (folder / "label.labels.txt").unlink()
    (folder / "features.json").unlink()
    assert "features.json is missing" in refusal(folder)


def test_other_names_of_files_and_old_descriptions(copy, tiny):
    folder = copy("tfrecord")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "train").mkdir()
    for number, path in enumerate(sorted(folder.glob("tiny-train.*"))):
        path.rename(folder / "train" / f"data.tfrecord-{number:05}")
    info["splits"][0]["filepathTemplate"] = "{SPLIT}/data.{FILEFORMAT}-{SHARD_INDEX}"
    # The oldest descriptions say nothing of the records in files, nor have they features.json.
    del info["splits"][1]["shardLengths"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").unlink()
    for split in ("train", "test"):
        source = open_source("tfds", split, str(folder))
        found = [source[i][:2] for i in range(len(source))]
        assert found == as_tfds_reads(tiny / "array_record", split)
        assert source.class_names == ("ant", "bee", "cat")


def legacy(kind, content):
    module = {"Image": "image_feature", "ClassLabel": "class_label_feature"}.get(kind)
    module = module or {"Sequence": "sequence_feature"}.get(kind, "features_dict")
    return {"type": f"tensorflow_datasets.core.features.{module}.{kind}", "content": content}


@pytest.mark.parametrize("as_text", [False, True])
def test_descriptions_of_features_as_they_were_written_once(copy, as_text):
    folder = copy("tfrecord")
    (folder / "label.labels.txt").unlink()
    image = {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "jpeg"}
    label = legacy("ClassLabel", {"num_classes": 3})

    def write(image, label):
        content = {"image": image, "label": label}
        whole = legacy("FeaturesDict", json.dumps(content) if as_text else content)
        (folder / "features.json").write_text(json.dumps(whole))
        return json.loads(json.dumps(legacy("FeaturesDict", content)))

    # TensorFlow Datasets itself still reads them.
    read = features.FeatureConnector.from_json(write(legacy("Image", image), label))
    assert read["label"].num_classes == 3
    assert open_source("tfds", "train", str(folder)).class_names == ("0", "1", "2")
    write(legacy("Image", image | {"dtype": "float32"}), label)
    assert "must be one Image of type uint8, but is Image(float32)" in refusal(folder)
    write(legacy("Image", image), legacy("Sequence", {"feature": label, "length": None}))
    assert "must be one ClassLabel, but is Sequence" in refusal(folder)
