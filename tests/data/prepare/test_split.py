import json

import pytest

from deit_jax.cli.main import main
from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.prepare.split import divide

CLASSES = {"cat": 10, "dog": 25, "owl": 2}


def tree(root):
    """Every path below a folder and what a file has in it."""
    return {
        path.relative_to(root): path.is_file() and path.read_bytes() for path in root.rglob("*")
    }


@pytest.fixture
def photographs(tmp_path):
    """Files that need not be images: nothing is decoded."""
    root = tmp_path / "photographs"
    for title, count in CLASSES.items():
        (root / title).mkdir(parents=True)
        for number in range(count):
            (root / title / f"{number}.jpeg").write_text(f"{title} {number}")
    return root


def split(root, out, *flags):
    return main(["split", str(root), "--output", str(out), *flags])


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_both_sides_have_the_classes_and_nothing_is_lost(photographs, tmp_path, flags, capsys):
    before = tree(photographs)
    assert split(photographs, tmp_path / "own", *flags) == 0
    assert tree(photographs) == before
    sides = {name: tree(tmp_path / "own" / name) for name in ("train", "val")}
    assert not sides["train"].keys() & {path for path, data in sides["val"].items() if data}
    assert sides["train"] | sides["val"] == before
    val = FolderSource(str(tmp_path / "own"), "val")
    assert val.class_names == FolderSource(str(tmp_path / "own"), "train").class_names
    # A fifth of each class, at least one.
    assert val.labels.tolist() == [0] * 2 + [1] * 5 + [2]
    linked = [path.is_symlink() for path in (tmp_path / "own" / "val").rglob("*.jpeg")]
    assert linked == [not flags] * 8
    record = json.loads((tmp_path / "own" / "split.json").read_text())
    assert record["seed"] == 0 and record["images"]["dog"] == {"train": 20, "val": 5}
    assert "3 classes, 29 in train, 8 in val" in capsys.readouterr().out


def test_it_follows_from_the_seed_and_hardly_moves_when_images_are_added(photographs):
    first = divide(photographs, {"val": 0.2}, 0).splits
    assert divide(photographs, {"val": 0.2}, 0).splits == first
    assert divide(photographs, {"val": 0.2}, 1).splits != first
    (photographs / "dog" / "new.jpeg").write_text("another")
    after = divide(photographs, {"val": 0.2}, 0).splits
    assert len(set(after["val"]) & set(first["val"])) >= len(first["val"]) - 1
    # Each image is as likely as any other: of ten, two are drawn.
    drawn = [
        path for s in range(200) for path in divide(photographs, {"val": 0.2}, s).splits["val"]
    ]
    assert all(20 < drawn.count(f"cat/{n}.jpeg") < 60 for n in range(10))


def test_three_splits(photographs):
    (photographs / "owl" / "2.jpeg").write_text("owl 2")
    division = divide(photographs, {"val": 0.2, "test": 0.4}, 0)
    assert division.counts() == {
        "cat": {"train": 4, "val": 2, "test": 4},
        "dog": {"train": 10, "val": 5, "test": 10},
        "owl": {"train": 1, "val": 1, "test": 1},
    }


def test_copies_stay_on_one_side(photographs):
    for number in range(10):
        (photographs / "cat" / f"copy-{number}.jpeg").write_text(f"cat {number}")
    # Another file of that size, and one that was put into two classes.
    (photographs / "cat" / "other.jpeg").write_text("cat x")
    (photographs / "owl" / "cat.jpeg").write_text("dog 7")
    for seed in range(5):
        division = divide(photographs, {"val": 0.3}, seed)
        val = set(division.splits["val"])
        assert all((f"cat/{n}.jpeg" in val) == (f"cat/copy-{n}.jpeg" in val) for n in range(10))
        assert not val & {"dog/7.jpeg", "owl/cat.jpeg"}
    assert division.notes == (
        "10 images are copies of others of their class and stay with them, such as cat/0.jpeg and "
        "cat/copy-0.jpeg.",
        "1 images are copies of images of another class: for training alone, such as dog/7.jpeg "
        "and owl/cat.jpeg.",
    )


def test_folders_below_a_class_stay_together(photographs):
    for scene in range(4):
        (photographs / "dog" / f"scene{scene}").mkdir()
        for number in range(5):
            path = photographs / "dog" / f"scene{scene}" / f"{number}.jpeg"
            path.write_text(f"{scene} {number}")
    for title in ("cat", "owl"):
        (photographs / title / "more").mkdir()
        (photographs / title / "more" / "1.jpeg").write_text(title)
    val = divide(photographs, {"val": 0.2}, 0, together=True).splits["val"]
    sides = {path.rsplit("/", 1)[0] for path in val}
    train = divide(photographs, {"val": 0.2}, 0, together=True).splits["train"]
    assert not sides & {path.rsplit("/", 1)[0] for path in train}


def test_what_is_left_out_is_said(photographs):
    (photographs / "empty").mkdir()
    (photographs / "beside.png").touch()
    notes = divide(photographs, {"val": 0.2}, 0).notes
    assert notes == (
        "1 images beside the class folders are left out.",
        "Folders without images are left out: empty.",
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--val=0.5", "--test=0.5"], "Nothing is left for training"),
        (["--test=0.2"], "every class needs at least 3 different images, one for each of"),
        (["--together"], "at least 2 folders of images"),
    ],
)
def test_refusals(photographs, tmp_path, flags, words, capsys):
    assert split(photographs, tmp_path / "own", *flags) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_nothing_is_overwritten_or_becomes_a_class(photographs, tmp_path, capsys):
    out = tmp_path / "own"
    out.mkdir()
    (out / "mine.txt").touch()
    before = tree(tmp_path)
    assert split(photographs, out) == 2
    # Before anything is read: there is no progress that ends at nothing.
    assert "".join(capsys.readouterr()) == (
        f"error: {out} exists; choose another --output, or remove it.\n"
    )
    assert split(photographs, photographs / "own") == 2
    assert "lies inside" in capsys.readouterr().err
    assert tree(tmp_path) == before
    (out / "mine.txt").unlink()
    assert split(photographs, out) == 0
    # What is divided already is not divided again.
    assert split(out, tmp_path / "again") == 2
    assert f"--config.data.directory={out} --config.data.eval_split=val" in capsys.readouterr().err
    assert split(tmp_path / "nowhere", tmp_path / "again") == 2
