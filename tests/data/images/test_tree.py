"""One rule for what is an image: every reader finds the same in the same tree, and none hangs."""

import errno
import os
import shutil
import tarfile
import zipfile

import pytest
from PIL import Image

from deit_jax.cli.main import main
from deit_jax.data.images import tree as module
from deit_jax.data.images.tree import image_tree
from deit_jax.data.open import open_alone, open_source, open_splits
from deit_jax.data.stream.read_or_replace import read_image
from deit_jax.evaluation.predict import find_images

# What systems put beside images, most of it under the names of images.
DROPPINGS = (
    "train/a/._0.png",
    "train/._a/0.png",
    "train/a/.DS_Store",
    "train/a/Thumbs.db",
    "train/b/desktop.ini",
    "train/b/.directory",
    "train/@eaDir/0.png",
    "train/a/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "train/.ipynb_checkpoints/0-checkpoint.png",
    "train/b/.ipynb_checkpoints/0-checkpoint.png",
    "train/lost+found/1.png",
    "train/__MACOSX/a/._0.png",
    "train/$RECYCLE.BIN/1.png",
    "train/.Trash-1000/files/1.png",
)
# In torchvision's order: folder by folder, and by name.
SOUND = ("train/a/0.png", "train/a/1.png", "train/a/deep/er/2.PNG", "train/b/0.png")


def write(root, places):
    for number, place in enumerate(places):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder, a tar and a zip of the same."""
    root = tmp_path_factory.mktemp("tree")
    write(root / "set", (*SOUND, *DROPPINGS))
    with tarfile.open(root / "set.tar", "w") as archive:
        archive.add(root / "set", "set")
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for path in (root / "set").rglob("*.*"):
            archive.write(path, path.relative_to(root))
    return root


def content(source):
    return source.class_names, [
        (r.image, r.label) for r in map(source.__getitem__, range(len(source)))
    ]


@pytest.mark.slow
def test_all_readers_find_the_same(tree, tmp_path):
    labels = dict(zip(SOUND, (0, 0, 0, 1), strict=True))
    expected = (
        ("a", "b"),
        [((tree / "set" / place).read_bytes(), label) for place, label in labels.items()],
    )
    assert content(open_source("folder", "train", str(tree / "set"))) == expected
    for name in ("set", "set.tar", "set.zip"):
        assert content(open_splits(tree / name, ["train"])["train"]) == expected, name
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        command = ["prepare", str(tree / name), str(tmp_path / "out"), "--splits=train"]
        assert main([*command, "--workers=1"]) == 0
        assert content(open_source("prepared", "train", str(tmp_path / "out"))) == expected, name
    assert content(open_alone(tree / "set" / "train", "train")["train"]) == expected
    found = find_images([str(tree / "set")])
    assert sorted(found) == sorted(str(tree / "set" / place) for place in SOUND)


def test_what_is_left_out_is_said_once_with_a_count(tree, caplog):
    open_source("folder", "train", str(tree / "set"))
    (record,) = caplog.records
    # Files that are called like images, and folders whole.
    assert "left out: what systems leave behind (10, such as" in record.message
    caplog.clear()
    open_splits(tree / "set.zip", ["train"])
    (record,) = caplog.records
    assert "left out: what systems leave behind (10, such as" in record.message


def test_images_beside_the_classes_are_left_out_with_a_word(tmp_path, caplog):
    write(tmp_path, ("train/a/1.jpeg", "train/2.jpeg", "train/3.png"))
    assert len(open_source("folder", "train", str(tmp_path))) == 1
    (record,) = caplog.records
    assert record.message == (
        f"{tmp_path}/train: left out: images in no class folder (2, such as '2.jpeg')."
    )


def test_images_of_other_endings_are_left_out_with_a_word(tmp_path, caplog):
    others = ("b/1.gif", "b/2.AVIF", "b/._3.gif", ".trash-0/4.gif")
    write(tmp_path / "set/train", ("a/0.png", "b/1.png", *others))
    shutil.make_archive(str(tmp_path / "set"), "tar", tmp_path / "set")
    for name in ("set", "set.tar"):
        caplog.clear()
        assert len(open_splits(tmp_path / name, ["train"])["train"]) == 2
        assert "images whose endings are not read (rename or convert them) (2, such" in caplog.text


@pytest.fixture
def linked(tmp_path):
    write(tmp_path, ("set/train/a/0.png", "set/train/b/1.png", "set/val/a/2.png", "more/3.png"))
    return tmp_path


def paths(root):
    return [
        os.path.join(folder, name)
        for folder, names in image_tree(str(root)).items()
        for name in names
    ]


def test_links_lead_to_each_folder_once_and_never_in_circles(linked, caplog):
    train = linked / "set" / "train"
    for place, target in (
        ("a/up", ".."),
        ("a/here", "."),
        ("b/root", "../.."),
        ("b/far", linked),
        ("b/other_class", "../a"),
        ("a/more", "../../../more"),
        ("b/more", "../../../more"),
        ("again", "b"),
        ("a/link.png", "0.png"),
    ):
        (train / place).symlink_to(target)
    # Links to files are images as any other; of two links to a folder the first by name counts.
    assert paths(train) == ["a/0.png", "a/link.png", "a/more/3.png", "b/1.png"]
    assert "links to folders that are read elsewhere or hold this one (7, such as" in caplog.text
    source = open_source("folder", "train", str(linked / "set"))
    assert (source.class_names, source.labels.tolist()) == (("a", "b"), [0, 0, 0, 1])
    # The folder itself may be a link, and a link nearer to the root goes before a deeper one.
    (linked / "set" / "linked").symlink_to("train")
    (train / "c").symlink_to(linked / "more")
    assert paths(linked / "set" / "linked") == ["a/0.png", "a/link.png", "b/1.png", "c/3.png"]


def test_only_regular_files_are_images(linked, caplog):
    folder = linked / "set" / "train" / "a"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "to_pipe.png").symlink_to("pipe.jpg")
    (folder / "x.jpg").mkdir()
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "gone.png").symlink_to("/nowhere/gone.png")
    assert paths(folder) == ["0.png", "circle.png", "gone.png"]
    assert "left out: pipes and devices (3, such as" in caplog.text
    # Where links lead nowhere, storage may be missing: that is damage, which has a limit.
    source = open_source("folder", "train", str(linked / "set"))
    for index in (1, 2):
        with pytest.raises(ValueError, match="Cannot read record"):
            read_image(source, index)


def refuse(monkeypatch, number, place):
    true = os.scandir

    def scandir(path):
        if str(path).endswith(place):
            raise OSError(number, os.strerror(number), path)
        return true(path)

    monkeypatch.setattr(module.os, "scandir", scandir)


def test_a_class_folder_that_cannot_be_read_is_named(linked, monkeypatch, capsys):
    refuse(monkeypatch, errno.EACCES, "train/b")
    expected = r"Folder '.*train/b' cannot be read \(Permission denied\): change its rights"
    with pytest.raises(PermissionError, match=expected):
        open_source("folder", "train", str(linked / "set"))
    command = ["prepare", str(linked / "set"), str(linked / "out"), "--splits=train"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Folder '") and error.count("\n") == 1


def test_too_many_open_files_come_with_advice(linked, monkeypatch):
    refuse(monkeypatch, errno.EMFILE, "train/b")
    with pytest.raises(OSError, match=r"^Too many open files: .*ulimit -n .*fewer workers"):
        open_source("folder", "train", str(linked / "set"))
