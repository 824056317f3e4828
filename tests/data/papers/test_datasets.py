"""The data sets of the paper, in small copies of what their authors publish."""

import io
import itertools
import json
import pathlib
import re
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deit_jax.cli.main import main
from deit_jax.data.formats.folder import in_order
from deit_jax.data.open import open_named, open_source
from deit_jax.data.papers.facts import DATASETS
from deit_jax.data.papers.imagenet import open_imagenet_v2
from deit_jax.data.stream.read_or_replace import read_image
from tests.data.papers.written_cifar import cifar_images, write_cifar
from tests.data.small_tfds import prepare_three_classes


def picture(path, number):
    """An image that tells its number: 4x4 pixels of one colour, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (number % 256, number // 256 % 256, 77)
    # PNG whatever the name says: these tests are about which image has which label.
    Image.new("RGB", (4, 4), colour).save(path, "PNG")


def numbers(source):
    """The numbers of a source's pictures and their labels."""
    found = []
    for index in range(len(source)):
        pixels, label = read_image(source, index)
        found.append((int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1]), label))
    return found


def test_flowers(tmp_path):
    labels = np.arange(12) % 102 + 1
    labels[7] = 102
    for number in range(1, 13):
        picture(tmp_path / "jpg" / f"image_{number:05}.jpg", number)
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    sets = {"trnid": [[9, 2]], "valid": [[4, 8]], "tstid": [[1, 3, 5, 6, 7, 10, 11, 12]]}
    scipy.io.savemat(tmp_path / "setid.mat", {k: np.uint16(v) for k, v in sets.items()})
    sources = open_named("flowers", tmp_path)
    assert numbers(sources["train"]) == [(n, labels[n - 1] - 1) for n in (2, 4, 8, 9)]
    assert numbers(sources["test"]) == [(n, labels[n - 1] - 1) for n in (1, 3, 5, 6, 7, 10, 11, 12)]
    assert sources["train"].num_classes == 102
    # From the tar that is left after gunzip.
    with tarfile.open(tmp_path / "102flowers.tar", "w") as tar:
        tar.add(tmp_path / "jpg", "jpg")
    picture(tmp_path / "jpg" / "image_00002.jpg", 99)
    assert numbers(open_named("flowers", tmp_path)["train"])[0] == (2, 1)
    (tmp_path / "102flowers.tar").unlink()
    (tmp_path / "jpg" / "image_00002.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 listed images are missing, such as image_00002"):
        open_named("flowers", tmp_path)
    (tmp_path / "setid.mat").write_bytes(b"no MATLAB file" * 20)
    with pytest.raises(ValueError, match=r"setid\.mat is no MATLAB file"):
        open_named("flowers", tmp_path)
    (tmp_path / "setid.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"setid\.mat"):
        open_named("flowers", tmp_path)


def annotations(rows, **fields):
    """A struct array such as the development kit has."""
    kinds = {name: object for name in ("bbox_x1", *fields)}
    table = np.zeros((1, len(rows)), dtype=list(kinds.items()))
    for column, row in enumerate(rows):
        table[0, column]["bbox_x1"] = 30.0
        for name, value in zip(fields, row, strict=True):
            table[0, column][name] = value
    return table


def cell(texts):
    return np.array([texts], dtype=object)


CARS = [(5, "AM General Hummer SUV 2000"), (1, "a"), (3, "b"), (196, "c")]
CAR_NAMES = [f"car {n}" for n in range(1, 197)]


@pytest.mark.parametrize("place", ["", "devkit"])
def test_cars_from_the_development_kit(tmp_path, place):
    kit = tmp_path / place
    kit.mkdir(exist_ok=True)
    for split, offset in (("train", 0), ("test", 100)):
        rows = [(label, f"{n:05}.jpg") for n, (label, _) in enumerate(CARS, 1)]
        for number, _ in enumerate(rows, 1):
            picture(tmp_path / f"cars_{split}" / f"{number:05}.jpg", offset + number)
        if split == "test":
            rows = [(label % 196 + 1, name) for label, name in rows]
        table = annotations([(np.uint8(a), b) for a, b in rows], **{"class": 0, "fname": 0})
        file = "cars_train_annos" if split == "train" else "cars_test_annos_withlabels"
        scipy.io.savemat(kit / f"{file}.mat", {"annotations": table})
    scipy.io.savemat(kit / "cars_meta.mat", {"class_names": cell(CAR_NAMES)})
    sources = open_named("cars", tmp_path)
    assert sources["train"].class_names == tuple(CAR_NAMES)
    assert numbers(sources["train"]) == [(1, 4), (2, 0), (3, 2), (4, 195)]
    assert numbers(sources["test"]) == [(101, 5), (102, 1), (103, 3), (104, 0)]
    (kit / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(FileNotFoundError, match="withlabels"):
        open_named("cars", tmp_path)


def test_cars_from_one_list_and_from_folders(tmp_path):
    rows = []
    for number, (label, _) in enumerate(CARS, 1):
        picture(tmp_path / "car_ims" / f"{number:06}.jpg", number)
        rows.append((f"car_ims/{number:06}.jpg", np.uint8(label), np.uint8(number % 2)))
    fields = {"relative_im_path": 0, "class": 0, "test": 0}
    content = {"annotations": annotations(rows, **fields), "class_names": cell(CAR_NAMES)}
    scipy.io.savemat(tmp_path / "cars_annos.mat", content)
    sources = open_named("cars", tmp_path)
    assert numbers(sources["train"]) == [(2, 0), (4, 195)]
    assert numbers(sources["test"]) == [(1, 4), (3, 2)]
    folders = tmp_path / "folders"
    for split in ("train", "test"):
        picture(folders / split / "Audi" / "1.jpg", 1)
        picture(folders / split / "BMW" / "2.jpg", 2)
    assert numbers(open_named("cars", folders)["test"]) == [(1, 0), (2, 1)]


@pytest.mark.parametrize("year", [2018, 2019])
def test_inaturalist(tmp_path, year):
    count = DATASETS[f"inat{year - 2000}"].classes
    categories = [{"id": n, "name": f"species {n}", "supercategory": "Aves"} for n in range(count)]
    for split, offset in (("train", 0), ("val", 100)):
        images, notes = [], []
        for number, label in enumerate((count - 1, 0, 12), 1):
            path = f"train_val{year}/Aves/{label}/{offset + number:04x}.jpg"
            picture(tmp_path / path, offset + number)
            images.append({"id": 1000 + number, "file_name": path, "width": 4, "height": 4})
            notes.append({"id": number, "image_id": 1000 + number, "category_id": label})
        # In an order of their own.
        content = {"images": images[::-1], "annotations": notes, "categories": categories[::-1]}
        (tmp_path / f"{split}{year}.json").write_text(json.dumps(content))
    sources = open_named(f"inat{year - 2000}", tmp_path)
    for split, offset in (("train", 0), ("test", 100)):
        expected = {(offset + 1, count - 1), (offset + 2, 0), (offset + 3, 12)}
        assert set(numbers(sources[split])) == expected
        assert sources[split].num_classes == count
    assert sources["train"].class_names[12] == "species 12"
    with tarfile.open(tmp_path / f"train_val{year}.tar", "w") as tar:
        tar.add(tmp_path / f"train_val{year}", f"train_val{year}")
    again = open_named(f"inat{year - 2000}", tmp_path)
    assert numbers(again["test"]) == numbers(sources["test"])
    (tmp_path / f"val{year}.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=rf"val{year}\.json is no list of annotated images"):
        open_named(f"inat{year - 2000}", tmp_path)


def test_imagenet_v2_has_its_classes_in_the_order_of_numbers(tmp_path):
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in (0, 1, 2, 10, 100, 999):
        picture(root / str(number) / "image.jpeg", number)
    with tarfile.open(tmp_path / "v2.tar", "w") as tar:
        tar.add(root, root.name)
    for path in (root, tmp_path / "v2.tar"):
        source = open_imagenet_v2(path)["val"]
        assert source.class_names == ("0", "1", "2", "10", "100", "999")
        assert numbers(source) == [(n, i) for i, n in enumerate((0, 1, 2, 10, 100, 999))]
    folder = open_source("numbered_folder", root.name, str(tmp_path))
    assert numbers(folder) == numbers(source)
    assert open_source("folder", root.name, str(tmp_path)).class_names[2] == "10"
    picture(root / "n01440764" / "image.jpeg", 0)
    with pytest.raises(ValueError, match="'n01440764', which is no number"):
        open_named("imagenet_v2", root)


def test_two_spellings_of_a_number_have_one_order():
    names = ("1", "01", "001", "0")
    for order in itertools.permutations(names):
        assert in_order(order, True, "x") == ("0", "001", "01", "1")


def test_the_documentation_has_a_command_and_the_counts_of_each():
    text = (pathlib.Path(__file__).parents[3] / "docs" / "data.md").read_text()
    assert re.findall(r"prepare --dataset (\w+)", text) == list(DATASETS)
    for data_set in DATASETS.values():
        for count in (data_set.classes, *data_set.images.values()):
            assert f"{count:,}" in text


def test_the_command_wants_all_of_a_data_set(tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-bin"
    images, labels = cifar_images(6), [0, 1, 2, 3, 4, 5]
    write_cifar(folder, 10, "binary", images, labels, list("abcdefghij"))
    command = ["prepare", "--dataset=cifar10", str(tmp_path), str(tmp_path / "out"), "--workers=1"]
    assert main(command) == 2
    assert "train has 5 images instead of 50,000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--incomplete"]) == 0
    assert "incomplete: train has 5 images" in capsys.readouterr().out
    source = open_source("prepared", "train", str(tmp_path / "out"))
    assert source.class_names == tuple("abcdefghij")
    for index in range(5):
        pixels, label = read_image(source, index)
        np.testing.assert_array_equal(pixels, images[index])
        assert label == labels[index]
    assert main(["prepare", "--dataset=cifar11", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "There is no data set 'cifar11': use imagenet," in capsys.readouterr().err
    assert main([*command, "--val-labels=x"]) == 2
    assert main(["prepare", "--dataset=cifar10", "nowhere.tar.gz", str(tmp_path / "out")]) == 2
    assert "No file or folder 'nowhere.tar.gz'" in capsys.readouterr().err


def test_what_tensorflow_datasets_prepared_has_the_papers_splits(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    prepare_three_classes(tmp_path)
    # Flowers: both of its parts are for training.
    parts = {"train": ("train", "test"), "test": ("test",)}
    monkeypatch.setitem(DATASETS, "flowers", DATASETS["flowers"]._replace(tfds=parts))
    sources = open_named("flowers", tmp_path)
    train, test = (open_source("tfds", split, str(tmp_path)) for split in ("train", "test"))
    assert len(sources["train"]) == 17
    every = [*(train[i] for i in range(12)), *(test[i] for i in range(5))]
    assert [sources["train"][i] for i in range(17)] == every
    assert sources["train"].labels.tolist() == [record.label for record in every]
    assert len(sources["test"]) == 5
    assert io.BytesIO(sources["test"][0].image).read(3) == b"\xff\xd8\xff"
