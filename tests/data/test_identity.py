"""What a data set is told from another by, and what is not seen."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from deit_jax.data import identity
from deit_jax.data.combined import Joined, keep_classes, subset
from deit_jax.data.formats.archives import Archive
from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.formats.listed import FolderFiles, by_class_folder
from deit_jax.data.formats.prepared import FORMAT, PreparedSource
from deit_jax.data.identity import identity_of
from deit_jax.data.source import ArraySource


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        for number in range(4):
            pixels = noise.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / "train" / name / f"{number}.bmp")
    return tmp_path / "set"


def record(folder):
    return identity_of(FolderSource(str(folder), "train"))


def changed(folder, before):
    return [key for key, value in record(folder).items() if value != before[key]]


def invert(path):
    """Other pixels in as many bytes."""
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def test_what_is_seen_of_a_folder(folder, tmp_path):
    before, train = record(folder), folder / "train"
    os.utime(train / "a" / "0.bmp", (0, 0))
    shutil.copytree(folder, tmp_path / "copy")
    assert changed(folder, before) == changed(tmp_path / "copy", before) == []
    invert(train / "b" / "2.bmp")
    assert changed(folder, before) == ["contents"]
    invert(train / "b" / "2.bmp")
    assert changed(folder, before) == []
    (train / "a" / "0.bmp").rename(train / "a" / "00.bmp")
    assert changed(folder, before) == ["records"]
    (train / "a" / "00.bmp").rename(train / "b" / "0a.bmp")
    assert changed(folder, before) == ["records", "contents"]
    (train / "b" / "0a.bmp").unlink()
    assert changed(folder, before)[0] == "images"
    (train / "c").rename(train / "d")
    assert "records" in changed(folder, record(tmp_path / "copy"))


def test_of_a_large_data_set_evenly_spaced_images_are_looked_at(folder, monkeypatch):
    monkeypatch.setattr(identity, "_SAMPLE", 4)
    monkeypatch.setattr(identity, "_SMALL_COUNT", 11)
    before = record(folder)
    seen = []
    for number in range(12):
        path = folder / "train" / "abc"[number // 4] / f"{number % 4}.bmp"
        invert(path)
        seen += [number] if changed(folder, before) else []
        invert(path)
    assert seen == identity.spaced(12, 4).tolist() == [0, 4, 7, 11]
    # Sizes, too, are asked of some only; but a name is never missed.
    monkeypatch.setattr(identity, "_MOST_SIZES", 4)
    before = record(folder)
    (folder / "train" / "a" / "1.bmp").rename(folder / "train" / "a" / "1b.bmp")
    assert changed(folder, before) == ["records"]


def test_an_image_that_cannot_be_read_stops_nothing(folder):
    source = FolderSource(str(folder), "train")
    before = identity_of(source)
    (folder / "train" / "a" / "0.bmp").unlink()
    after = identity_of(source)
    assert after["contents"] != before["contents"] and after["images"] == 12


def sources(folder):
    """One of each kind, of the same images."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.bmp")):
            archive.write(file, file.relative_to(folder))
    base = FolderSource(str(folder), "train")
    images = np.stack([np.asarray(Image.open(f)) for f in sorted(folder.rglob("*.bmp"))])
    return {
        "folder": base,
        "files": by_class_folder(FolderFiles(folder / "train"), "files"),
        "zip": by_class_folder(Archive(path), "zip", "train"),
        "arrays": ArraySource("arrays", images, base.labels, base.class_names),
        "subset": subset(base, 6, seed=0),
        "classes": keep_classes(base, 2),
        "joined": Joined("both", [base, base]),
    }


def test_each_kind_of_source_sees_other_labels_and_repeats_itself(folder):
    before = {name: source.identity for name, source in sources(folder).items()}
    assert len(set(before.values())) == len(before)
    assert {name: source.identity for name, source in sources(folder).items()} == before
    a, b = folder / "train" / "a" / "1.bmp", folder / "train" / "b" / "1.bmp"
    a.rename(b.with_name("x.bmp"))
    b.rename(a.with_name("x.bmp"))
    after = {name: source.identity for name, source in sources(folder).items()}
    assert [name for name in before if before[name] == after[name]] == []
    assert subset(FolderSource(str(folder), "train"), 6, seed=1).identity != after["subset"]


def test_prepared_data_is_told_by_the_checksums_of_its_shards(tmp_path):
    def prepared(checksum):
        shards = [{"file": "a", "images": 3, "sha256": checksum}]
        manifest = {"format": FORMAT, "classes": ["x"], "splits": {"train": {"shards": shards}}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "a").write_bytes(b"")
        return PreparedSource(str(tmp_path), "train").identity

    assert prepared("0") == prepared("0") != prepared("1")
