"""Archives of a folder, and what is read from them."""

import io
import os
import tarfile
import zipfile

import numpy as np
import scipy.io


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
