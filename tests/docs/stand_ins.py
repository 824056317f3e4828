"""Small things in place of what documented commands name: images, data sets, photographs."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deit_jax.data.papers.facts import DATASETS
from tests.data.packed import write_kit
from tests.data.papers.written_cifar import cifar_images, write_cifar

CLASSES = 10


def photograph(path, seed=0):
    """Write a JPEG of random blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    pixels = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).save(path, "JPEG")


def class_folder(root, each, names=None):
    """Write CLASS/IMAGE with some images each."""
    names = names or [f"class{n}" for n in range(CLASSES)]
    for number, name in enumerate(names):
        for image in range(each):
            photograph(root / name / f"{number}_{image}.JPEG", each * number + image)


def image_folder(root):
    """Write SPLIT/CLASS/IMAGE with 40 and 20 images."""
    if not root.exists():
        class_folder(root / "train", 4)
        class_folder(root / "val", 2)
    return root


def scenes(root):
    """Write CLASS/SCENE/IMAGE, once: three scenes of two images."""
    for title in range(CLASSES) if not root.exists() else ():
        for number in range(6):
            photograph(
                root / f"class{title}" / f"{number // 2}" / f"{number}.jpg", 6 * title + number
            )


def class_archive(path):
    """Write a zip of CLASS/IMAGE."""
    folder = path.with_suffix("")
    class_folder(folder, 1)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.JPEG")):
            archive.write(file, file.relative_to(folder))


def real_labels(path):
    """Write labels of ReaL for the 20 images of `image_folder`: one has none, one has two."""
    path.write_text(json.dumps([[], [0, 1], *([n // 2] for n in range(2, 20))]))


def tensorflow_data_set(root):
    """Let TensorFlow Datasets prepare 12 images for training and 6 for validation."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def jpeg(number):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG")
        return file.getvalue()

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "validation": self._generate_examples(6)}

        def _generate_examples(self, count=0):
            for n in range(count):
                yield n, {"image": io.BytesIO(jpeg(n)), "label": n % CLASSES}

    if not root.exists():
        Small(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


def published(name, path):
    """Write a few images in the form in which the authors of a data set of the paper have them."""
    if name.startswith("cifar"):
        _cifar(name, path)
    elif name == "imagenet":
        class_folder(path / "train", 1)
        labels = [f"class{n}" for n in (3, 1, 2)]
        for number in range(len(labels)):
            photograph(path / "val" / f"ILSVRC2012_val_{number + 1:08}.JPEG", number)
        kit = path.parent / "ILSVRC2012_devkit_t12.tar.gz"
        write_kit(kit, [f"class{n}" for n in range(CLASSES)], labels)
    elif name == "imagenet_v2":
        class_folder(path, 1, [str(n) for n in range(CLASSES)])
    elif name == "cars":
        for split in ("train", "test"):
            class_folder(path / split, 1)
    elif name == "flowers":
        _flowers(path)
    else:
        _inaturalist(name, path)


def _cifar(name, archive):
    """Six images, five of them for training, as Python's version has them."""
    classes = DATASETS[name].classes
    inner = {10: "cifar-10-batches-py", 100: "cifar-100-python"}[classes]
    folder = archive.parent / inner
    names = [f"class {n}" for n in range(classes)]
    write_cifar(folder, classes, "python", cifar_images(6), [3, classes - 1, 0, 7, 1, 2], names)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, inner)


def _flowers(root):
    labels = np.arange(12) % DATASETS["flowers"].classes + 1
    for number in range(1, 13):
        photograph(root / "jpg" / f"image_{number:05}.jpg", number)
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    sets = {"trnid": [[9, 2]], "valid": [[4, 8]], "tstid": [[1, 3, 5, 6, 7, 10, 11, 12]]}
    scipy.io.savemat(root / "setid.mat", {key: np.uint16(value) for key, value in sets.items()})


def _inaturalist(name, root):
    year = 2000 + int(name.removeprefix("inat"))
    categories = [{"id": n, "name": f"species {n}"} for n in range(DATASETS[name].classes)]
    for split, count in (("train", 6), ("val", 3)):
        files = [f"train_val{year}/Aves/{n}/{split}_{n}.jpg" for n in range(count)]
        for number, file in enumerate(files):
            photograph(root / file, number)
        images = [{"id": n, "file_name": file} for n, file in enumerate(files)]
        notes = [{"id": n, "image_id": n, "category_id": n} for n in range(count)]
        content = {"images": images, "annotations": notes, "categories": categories}
        Path(root / f"{split}{year}.json").write_text(json.dumps(content))
