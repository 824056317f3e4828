"""Sources: the digits, image folders against torchvision's, subsets, and clear errors."""

import hashlib
import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from deit_jax.data.combined import Subset, subset
from deit_jax.data.open import open_source
from deit_jax.data.source import ArraySource, require_same_classes
from deit_jax.data.stream.read_or_replace import read_image


def _digest(images):
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]


def test_digits_are_split_once_and_for_all():
    from sklearn.datasets import load_digits

    train, validation, test = (
        open_source("digits", split) for split in ("train", "validation", "test")
    )
    assert (len(train), len(validation), len(test)) == (597, 400, 800)
    assert np.bincount(test.labels).tolist() == [80] * 10
    assert np.bincount(validation.labels).tolist() == [40] * 10
    assert train.num_classes == 10
    # Together they are scikit-learn's images: grey values 0..16 -> 0..255, twice as large.
    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)
    upscaled = [Image.fromarray(g).resize((16, 16), Image.Resampling.BICUBIC) for g in grey]
    expected = sorted(
        (int(label), np.asarray(image).tobytes())
        for label, image in zip(digits.target, upscaled, strict=True)
    )
    every = [source[i] for source in (train, validation, test) for i in range(len(source))]
    assert sorted((r.label, r.image[:, :, 1].tobytes()) for r in every) == expected
    assert all((r.image == r.image[:, :, :1]).all() for r in every)
    # Frozen: results on the test images are compared across versions.
    assert test.labels[:12].tolist() == [1, 2, 6, 7, 9, 0, 3, 4, 5, 7, 8, 9]
    assert _digest(test.images) == "9e2d6e87b45933b9"
    assert test[7].name == "digits/test[7]"


def test_folder_equals_torchvisions(image_folder):
    for split in ("train", "val"):
        ours = open_source("folder", split, str(image_folder))
        theirs = ImageFolder(str(image_folder / split))
        assert list(ours.class_names) == theirs.classes
        assert len(ours) == len(theirs)
        assert ours.labels.tolist() == theirs.targets
        for i, (path, label) in enumerate(theirs.samples):
            record = ours[i]
            assert (record.name, record.label) == (path, label)
            pixels, _ = read_image(ours, i)
            np.testing.assert_array_equal(pixels, np.asarray(theirs[i][0]))


def test_folder_takes_the_same_files_as_torchvision(tmp_path):
    picture = Image.new("RGB", (4, 4))
    for path in (
        "b/1.JPG",
        "b/0.png",
        "b/nested/deep/2.bmp",
        "b/nested/0.webp",
        "b/b.tiff",
        "a/ümläut ß.jpeg",
        "a/.hidden.ppm",
        "A/x.PGM",
    ):
        file = tmp_path / "train" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    for name in ("b/notes.txt", "b/gone.gif", "stray.jpeg"):
        (tmp_path / "train" / name).write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    picture.save(tmp_path / "elsewhere" / "0.jpg")
    (tmp_path / "train" / "c").symlink_to(tmp_path / "elsewhere")
    ours = open_source("folder", "train", str(tmp_path))
    theirs = ImageFolder(str(tmp_path / "train"))
    assert [(ours[i].name, ours[i].label) for i in range(len(ours))] == theirs.samples
    assert pickle.loads(pickle.dumps(ours))[0] == ours[0]


def test_missing_and_empty_folders_are_named(tmp_path, image_folder):
    def opened(directory, split="train"):
        return open_source("folder", split, str(directory))

    with pytest.raises(FileNotFoundError, match="nowhere/train"):
        opened(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="No folder"):
        open_source("folder", "train")
    with pytest.raises(FileNotFoundError, match=r"/train': .*IMAGE.jpeg\.$"):
        opened(tmp_path / "nowhere")
    # Classes that nobody has divided, and one split taken for the data set.
    (tmp_path / "photographs" / "cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"has cat: .* deit_jax split .*/photographs"):
        opened(tmp_path / "photographs")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}' has a folder 'train': give"):
        opened(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match="no class folders"):
        opened(tmp_path)
    (tmp_path / "train" / "ant").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train/ant' holds no images"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="Unknown data source 'lmdb'"):
        open_source("lmdb", "train")
    with pytest.raises(ValueError, match="no split 'val'"):
        open_source("digits", "val")


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"deit_jax\[demo\]"):
        open_source("digits", "train")


def test_labels_must_mean_the_same_in_both_splits(image_folder, tmp_path):
    train = open_source("folder", "train", str(image_folder))
    require_same_classes(train, open_source("folder", "val", str(image_folder)))
    shutil.copytree(image_folder / "val", tmp_path / "val")
    shutil.rmtree(tmp_path / "val" / "bee")
    with pytest.raises(ValueError, match=r"3 classes .* 2, .*'bee' is in only one"):
        require_same_classes(train, open_source("folder", "val", str(tmp_path)))


@pytest.mark.parametrize("size", [10, 37, 100, 500])
def test_subsets_are_balanced_and_nested(size):
    digits = open_source("digits", "train")
    part = subset(digits, size, seed=3)
    assert len(part) == size
    counts = np.bincount(part.labels, minlength=10)
    assert counts.min() == size // 10
    assert counts.max() - counts.min() <= 1
    larger = subset(digits, size + 41, seed=3)
    assert {i.tobytes() for i in part.images} <= {i.tobytes() for i in larger.images}
    assert {i.tobytes() for i in part.images} != {
        i.tobytes() for i in subset(digits, size, seed=4).images
    }


def test_subset_of_files(image_folder):
    train = open_source("folder", "train", str(image_folder))
    part = subset(train, 6, seed=0)
    assert isinstance(part, Subset)
    assert np.bincount(part.labels).tolist() == [2, 2, 2]
    assert [part[i].label for i in range(6)] == part.labels.tolist()
    assert part.class_names == train.class_names
    assert {part[i].name for i in range(6)} < {train[i].name for i in range(11)}
    assert subset(train, 0, seed=0) is train
    assert subset(train, 11, seed=0) is train
    with pytest.raises(ValueError, match="11 images: cannot take 12"):
        subset(train, 12, seed=0)


def test_array_source_checks_what_it_is_given():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        ArraySource("mine", images, [0, 1, 0], ["a", "b"])
    with pytest.raises(ValueError, match=r"uint8 .* got float32"):
        ArraySource("mine", images.astype(np.float32), [0, 1], ["a", "b"])
