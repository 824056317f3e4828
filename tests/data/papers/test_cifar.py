"""CIFAR as its authors publish it, in small copies."""

import tarfile

import numpy as np
import pytest

from deit_jax.data.open import open_named
from deit_jax.data.papers.facts import missing_from
from tests.data.papers.written_cifar import cifar_images, write_cifar


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar(tmp_path, classes, version):
    folder = tmp_path / f"cifar-{classes}{'-batches' if classes == 10 else ''}"
    if classes == 10:
        folder = folder.with_name(folder.name + ("-bin" if version == "binary" else "-py"))
    else:
        folder = folder.with_name(f"{folder.name}-{version}")
    images, names = cifar_images(6), [f"name_{n}" for n in range(classes)]
    labels = [3, classes - 1, 0, 7, 1, 2]
    write_cifar(folder, classes, version, images, labels, names)
    archive = tmp_path / f"cifar-{classes}-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    name = f"cifar{classes}"
    alone = tmp_path / "archive alone" / archive.name
    alone.parent.mkdir()
    alone.write_bytes(archive.read_bytes())
    for path in (folder, archive, tmp_path, alone.parent):
        sources = open_named(name, path)
        assert [len(sources[split]) for split in ("train", "test")] == [5, 1]
        for split, part in (("train", slice(0, 5)), ("test", slice(5, 6))):
            assert sources[split].labels.tolist() == labels[part]
            assert sources[split].class_names == tuple(names)
            for index, image in enumerate(images[part]):
                np.testing.assert_array_equal(sources[split][index].image, image)
    assert missing_from(name, sources) == [
        "train has 5 images instead of 50,000",
        "test has 1 images instead of 10,000",
    ]


def test_damaged_cifar_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar(folder, 10, "binary", cifar_images(6), [0] * 6, list("abcdefghij"))
    whole = (folder / "data_batch_2.bin").read_bytes()
    for data, message in ((whole[:-1], "no multiple of 3,073"), (b"\x0a" + whole[1:], "label")):
        (folder / "data_batch_2.bin").write_bytes(data)
        with pytest.raises(ValueError, match=rf"data_batch_2\.bin is damaged: .*{message}"):
            open_named("cifar10", tmp_path)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither version of CIFAR-10: .*binary\.tar\.gz"):
        open_named("cifar10", tmp_path)
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, 100, "python", cifar_images(6), [0] * 6, [str(n) for n in range(100)])
    hostile = b"\x80\x02cos\nsystem\nU\x04echo\x85R."
    (folder / "train").write_bytes(hostile)
    with pytest.raises(ValueError, match=r"train is damaged: mentions 'os\.system'"):
        open_named("cifar100", tmp_path)


def test_a_damaged_archive_is_told_by_its_checksum(tmp_path):
    """Most damage lies in pixels, which no tar notices; some makes it look shorter than it is."""
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar(folder, 10, "binary", cifar_images(6), [0] * 6, list("abcdefghij"))
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    whole = archive.read_bytes()
    assert len(open_named("cifar10", archive)["train"]) == 5
    for position in range(50, len(whole), len(whole) // 20):
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"binary\.tar\.gz is a damaged or incomplete archive"):
            open_named("cifar10", archive)
