"""Tars and zips against the folder that they were packed from, and hostile or damaged ones."""

import io
import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import scipy.io

from deit_jax.cli.main import main
from deit_jax.data.formats.archives import Archive
from deit_jax.data.images.file import MOST_BYTES
from deit_jax.data.open import open_alone, open_source, open_splits
from deit_jax.data.papers.imagenet import TRAIN_TAR, VAL_TAR, open_imagenet


def pack(folder, path, below=""):
    """Packs a folder as people do; `below` is the part of it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((folder / below).rglob("*")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(folder / below, below or ".")
    return path


def add(tar, name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    tar.addfile(info, io.BytesIO(data))


def records(source):
    return [source[i] for i in range(len(source))]


def same(ours, folder):
    """Whether images, labels, classes and their order are those of an image folder."""
    assert ours.class_names == folder.class_names
    np.testing.assert_array_equal(ours.labels, folder.labels)
    assert [(r.image, r.label) for r in records(ours)] == [
        (r.image, r.label) for r in records(folder)
    ]
    names = [os.path.basename(r.name) for r in records(folder)]
    assert [os.path.basename(r.name) for r in records(ours)] == names


@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_an_archive_has_what_the_folder_has(image_folder, tmp_path, ending):
    (tmp_path / "around").mkdir()
    os.symlink(image_folder, tmp_path / "around" / "set")
    whole = pack(image_folder, tmp_path / f"whole{ending}")
    wrapped = tmp_path / f"wrapped{ending}"
    if ending == ".tar":
        subprocess.run(["tar", "chf", wrapped, "-C", tmp_path, "around"], check=True, timeout=60)
    else:
        with zipfile.ZipFile(wrapped, "w") as archive:
            for file in image_folder.rglob("*.JPEG"):
                archive.write(file, f"around/set/{file.relative_to(image_folder)}")
            archive.writestr("__MACOSX/around/set/train/ant/._ant_0.JPEG", b"rubbish")
            archive.writestr("around/set/train/ant/._ant_1.JPEG", b"rubbish")
    for path in (whole, wrapped):
        for split, source in open_splits(path, ["train", "val"]).items():
            folder = open_source("folder", split, str(image_folder))
            same(source, folder)
            same(pickle.loads(pickle.dumps(source)), folder)
    # One archive for each split, alone or side by side.
    for split in ("train", "val"):
        pack(image_folder / split, tmp_path / f"{split}{ending}")
    for split, source in open_splits(tmp_path, ["train", "val"]).items():
        same(source, open_source("folder", split, str(image_folder)))
        alone = open_alone(tmp_path / f"{split}{ending}", split)
        same(alone[split], open_source("folder", split, str(image_folder)))
    with pytest.raises(ValueError, match=r"no folder 'test'.*--split"):
        open_splits(whole, ["test"])


def test_long_names_nested_folders_and_repeated_members(tmp_path):
    deep = "train/class/" + "very long folder name " * 12
    expected = {f"{deep}/ü.jpeg": b"1", "train/class/b.jpeg": b"2", "train/other/a.png": b"3"}
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            add(tar, "train/class/b.jpeg", b"older")
            add(tar, "train/notes.txt", b"no image")
            for name, data in expected.items():
                add(tar, name, data)
        archive = Archive(path)
        assert {name: archive.read(i) for i, name in enumerate(archive.names)} == expected
        source = open_splits(path, ["train"])["train"]
        # By folder and then by name, as in an image folder.
        assert [record.image for record in records(source)] == [b"2", b"1", b"3"]


def imagenet_tars(image_folder, directory):
    """The two files of ILSVRC 2012; returns the labels of the second in order of name."""
    with tarfile.open(directory / TRAIN_TAR, "w") as outer:
        for name in ("bee", "ant", "cat"):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for file in sorted((image_folder / "train" / name).iterdir()):
                    tar.add(file, file.name)
            add(outer, f"{name}.tar", inner.getvalue())
    labels = []
    with tarfile.open(directory / VAL_TAR, "w") as tar:
        for number, file in enumerate(sorted((image_folder / "val").rglob("*.JPEG")), 1):
            labels.append(file.parent.name)
            # Written in another order than that of the names.
            tar.add(file, f"ILSVRC2012_val_{(number * 5) % 7:08}.JPEG")
    return [labels[(n * 3) % 7 - 1] for n in range(1, 7)]


def test_imagenets_own_tars(image_folder, tmp_path):
    labels = imagenet_tars(image_folder, tmp_path)
    classes = ["ant", "bee", "cat"]
    with pytest.raises(ValueError, match="--val-labels"):
        open_imagenet(tmp_path)
    file = tmp_path / "labels.txt"
    names = [f"ILSVRC2012_val_{n:08}" for n in range(1, 7)]
    both = list(zip(names, labels, strict=True))
    for text in (
        "\n".join(labels),
        "\n".join(str(classes.index(label)) for label in labels) + "\n",
        "".join(f"{name}.JPEG {classes.index(label)}\n" for name, label in reversed(both)),
        "ImageId,PredictionString\n"
        + "".join(f"{name},{label} 1 2 3 4 {label} 5 6 7 8\n" for name, label in both),
    ):
        file.write_text(text)
        sources = open_imagenet(tmp_path, str(file))
        same(sources["train"], open_source("folder", "train", str(image_folder)))
        assert [sources["val"].class_names[label] for label in sources["val"].labels] == labels
        images = {
            r.image: r.label for r in records(open_source("folder", "val", str(image_folder)))
        }
        assert all(images[r.image] == r.label for r in records(sources["val"]))
        assert [os.path.basename(r.name) for r in records(sources["val"])] == [
            f"{name}.JPEG" for name in names
        ]
    output = tmp_path / "prepared"
    command = ["prepare", "--dataset=imagenet", str(tmp_path), str(output), "--workers=1"]
    assert main([*command, f"--val-labels={file}", "--incomplete"]) == 0
    for split, source in sources.items():
        assert records(open_source("prepared", split, str(output))) == records(source)
    for text, message in (
        ("ant\n" * 5, "5 labels for 6 images"),
        ("ant\n" * 5 + "dog", "'dog', which is no class"),
        ("1\n2\n3\n1\n2\n3\n", "counts classes from 1"),
        (f"{names[0]} ant\n" * 6, "no label for 5 of 6 images, such as ILSVRC2012_val_00000002"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_imagenet(tmp_path, str(file))


def write_kit(path, classes, labels):
    """The development kit: its numbers count from 1, in another order than that of names."""
    order = [*reversed(classes), "an inner node"]
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("children", object)]
    synsets = np.zeros((len(order), 1), dtype=kinds)
    for number, name in enumerate(order):
        synsets[number, 0] = (np.uint16(number + 1), name, np.zeros((1, 0)))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{order.index(label) + 1}\n" for label in labels).encode()
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/readme.txt", b"")
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        name = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        add(tar, name, truth)


def test_labels_from_the_development_kit(image_folder, tmp_path):
    labels = imagenet_tars(image_folder, tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    write_kit(kit, ["ant", "bee", "cat"], labels)
    source = open_imagenet(tmp_path, str(kit))["val"]
    assert [source.class_names[label] for label in source.labels] == labels
    kit.write_bytes(kit.read_bytes()[:300])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        open_imagenet(tmp_path, str(kit))
    write_kit(kit, ["ant", "bee", "cat"], labels[:-1])
    with pytest.raises(ValueError, match="5 labels for 6 images"):
        open_imagenet(tmp_path, str(kit))


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet_in_one_archive_as_kaggle_has_it(image_folder, tmp_path, flat):
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(image_folder, root)
    (root / "test").mkdir()
    shutil.copy(image_folder / "train/ant/ant_0.JPEG", root / "test" / "ILSVRC2012_test_1.JPEG")
    rows = ["ImageId,PredictionString"]
    if flat:
        for file in sorted((root / "val").rglob("*.JPEG")):
            rows.append(f"{file.stem},{file.parent.name} 1 2 3 4")
            file.rename(root / "val" / file.name)
        for name in ("ant", "bee", "cat"):
            (root / "val" / name).rmdir()
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text("\n".join(rows))
    archive = tmp_path / "kaggle.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for image in root.rglob("*.JPEG"):
            file.write(image, image.relative_to(tmp_path))
    sources = [open_imagenet(place, str(solution) * flat) for place in (archive, root)]
    for found in sources:
        same(found["train"], open_source("folder", "train", str(image_folder)))
        # Classes are called as the beginnings of the names, so both orders are one.
        same(found["val"], open_source("folder", "val", str(image_folder)))
    if flat:
        with pytest.raises(ValueError, match="--val-labels"):
            open_imagenet(archive)


def test_what_is_no_plain_file_or_leads_outside_is_left_out(tmp_path, caplog):
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "train/a/1.jpeg", b"good")
        add(tar, "/etc/2.jpeg", b"bad")
        add(tar, "train/../../3.jpeg", b"bad")
        add(tar, "train/a/4.jpeg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "train/a/5.jpeg", type=tarfile.LNKTYPE, linkname="train/a/1.jpeg")
        add(tar, "train/a/6.jpeg", type=tarfile.CHRTYPE)
        add(tar, "train/a/7.jpeg", type=tarfile.FIFOTYPE)
    assert list(Archive(path).names) == ["train/a/1.jpeg"]
    assert "names that lead out of the archive (6, such as" in caplog.text
    caplog.clear()
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
        archive.writestr("train/a/1.jpeg", b"good")
        archive.writestr("../2.jpeg", b"bad")
        archive.writestr("/3.jpeg", b"bad")
        link = zipfile.ZipInfo("train/a/4.jpeg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert list(Archive(tmp_path / "hostile.zip").names) == ["train/a/1.jpeg"]
    assert "names that lead out of the archive (3, such as" in caplog.text


def test_false_claims_of_size_are_found_out_before_they_cost_memory(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/large.jpeg", bytes(1 << 20))
        archive.writestr("a/small.jpeg", bytes(1 << 20))
    data = bytearray(bomb.read_bytes())
    # In the central directory the first has a byte more than any image, the second one in all.
    for entry, size in ((data.index(b"PK\1\2"), MOST_BYTES + 1), (data.rindex(b"PK\1\2"), 1)):
        data[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    bomb.write_bytes(data)
    archive = Archive(bomb)
    for index, message in ((0, "1,073,741,825 bytes, more than any image"), (1, "CRC-32")):
        with pytest.raises(ValueError, match=message):
            archive.read(index)
    path = tmp_path / "sparse.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "a/1.jpeg", b"x" * 600)
    header = bytearray(path.read_bytes())
    info = tarfile.TarInfo("a/1.jpeg")
    info.size = 1 << 40
    header[:512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(header)
    with pytest.raises(ValueError, match="damaged or incomplete archive"):
        Archive(path)


def test_damaged_and_compressed_archives_are_refused_in_one_sentence(image_folder, tmp_path):
    whole = pack(image_folder, tmp_path / "whole.tar").read_bytes()
    broken = tmp_path / "broken.tar"
    second = whole.index(b"train/ant/ant_1.JPEG")
    for data in (
        whole[: len(whole) // 2],
        whole[:second] + b"\xff" + whole[second + 1 :],
        b"",
        b"no archive at all" * 100,
    ):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=r"broken\.tar is a damaged or incomplete archive"):
            Archive(broken)
    zipped = pack(image_folder, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "broken.zip").write_bytes(zipped[: len(zipped) // 2])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        Archive(tmp_path / "broken.zip")
    with tarfile.open(tmp_path / "small.tar.gz", "w:gz") as tar:
        add(tar, "train/a/1.jpeg", b"data")
    with pytest.raises(ValueError, match=r"compressed as a whole.*gunzip"):
        Archive(tmp_path / "small.tar.gz")
    with pytest.raises(FileNotFoundError, match="No archive"):
        Archive(tmp_path / "nowhere.tar")


@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_random_damage_never_leads_to_another_error(image_folder, tmp_path, ending):
    whole = pack(image_folder / "val", tmp_path / f"whole{ending}").read_bytes()
    # Where the structure is: headers of a tar, the index of a zip.
    marks = {".tar": b"ustar", ".zip": b"PK\1\2"}[ending]
    places = [i for i in range(len(whole)) if whole.startswith(marks, i)]
    random, refused = np.random.default_rng(0), 0
    images = {file.read_bytes() for file in (image_folder / "val").rglob("*.JPEG")}
    path = tmp_path / f"broken{ending}"
    for _ in range(200):
        data = bytearray(whole)
        for place in random.choice(places, 2):
            data[place + random.integers(-257 if ending == ".tar" else 4, 46)] = random.integers(
                256
            )
        path.write_bytes(data)
        try:
            archive = Archive(path)
            for index in range(len(archive)):
                data = archive.read(index)
                # Only a zip has checksums. What it says of dates or rights does not matter.
                assert ending == ".tar" or data in images
        except ValueError:
            refused += 1
    assert refused > 80


def test_a_damaged_member_of_a_zip_is_named(image_folder, tmp_path):
    path = pack(image_folder, tmp_path / "set.zip")
    data = bytearray(path.read_bytes())
    start = data.index(b"bee_2.JPEG") + 200
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    source = open_splits(path, ["train"])["train"]
    wrong = []
    for index in range(len(source)):
        try:
            source[index]
        except ValueError as error:
            wrong.append(str(error))
    assert len(wrong) == 1
    assert "set.zip/train/bee/bee_2.JPEG: it" in wrong[0]
