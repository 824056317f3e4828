"""ImageNet as it is published: its own tars, the development kit, and one archive of all."""

import io
import os
import shutil
import tarfile
import zipfile

import pytest

from deit_jax.cli.main import main
from deit_jax.data.open import open_source
from deit_jax.data.papers.imagenet import TRAIN_TAR, VAL_TAR, open_imagenet
from tests.data.packed import add, records, same, write_kit


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
        ",,\n" + "\n".join(labels),
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


def test_labels_from_the_development_kit(image_folder, tmp_path):
    labels = imagenet_tars(image_folder, tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    write_kit(kit, ["ant", "bee", "cat"], labels)
    source = open_imagenet(tmp_path, str(kit))["val"]
    assert [source.class_names[label] for label in source.labels] == labels
    whole = kit.read_bytes()
    # The end of the file is the checksum of all before it.
    for damaged in (whole[:300], whole[:-8] + bytes(8)):
        kit.write_bytes(damaged)
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
