"""Tars and zips against the folder that they were packed from, and hostile or damaged ones."""

import os
import pickle
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from deit_jax.data.formats.archives import Archive
from deit_jax.data.images.file import MOST_BYTES
from deit_jax.data.open import open_alone, open_source, open_splits
from tests.data.packed import add, pack, records, same


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
