"""CIFAR's files in small, as its authors write them."""

import pickle
import struct

import numpy as np

RANDOM = np.random.default_rng(0)


def cifar_images(count):
    return RANDOM.integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes(images):
    """As both versions store them: row after row of all red, then green, then blue values."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python2_pickle(batch):
    """A dict as Python 2's cPickle with protocol 2 wrote it: texts and bytes are BINSTRING."""

    def string(data):
        short = len(data) < 256
        return (b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data

    def value(item):
        if isinstance(item, np.ndarray):
            rows, columns = item.shape
            return (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                b"(K\x01" + value(rows) + value(columns) + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01"
                b"\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
                + string(item.tobytes())
                + b"tb"
            )
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        return b"J" + struct.pack("<i", item) if isinstance(item, int) else string(item.encode())

    items = b"".join(string(name.encode()) + value(item) for name, item in batch.items())
    return b"\x80\x02}(" + items + b"u."


def write_cifar(folder, classes, version, images, labels, names):
    """The files of a version with six images: CIFAR-10 has its training images in five files."""
    coarse = [0] * len(labels)
    parts = {"test": slice(5, 6)}
    if classes == 10:
        parts |= {str(n): slice(n - 1, n) for n in range(1, 6)}
        files = {"test": "test_batch"} | {str(n): f"data_batch_{n}" for n in range(1, 6)}
    else:
        parts, files = parts | {"train": slice(0, 5)}, {"test": "test", "train": "train"}
    folder.mkdir(parents=True)
    for key, part in parts.items():
        data, wanted = planes(images[part]), labels[part]
        if version == "binary":
            columns = [np.array(wanted, np.uint8)[:, None], data]
            if classes == 100:
                columns.insert(0, np.array(coarse[part], np.uint8)[:, None])
            (folder / f"{files[key]}.bin").write_bytes(np.hstack(columns).tobytes())
        else:
            label = {"labels": wanted} if classes == 10 else {"fine_labels": wanted}
            batch = {"batch_label": "a batch", "coarse_labels": coarse, **label, "data": data}
            assert_pickle(python2_pickle(batch), batch)
            (folder / files[key]).write_bytes(python2_pickle(batch))
    if version == "binary":
        name = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
        (folder / name).write_text("\n".join(names) + "\n\n")
    else:
        name, key = (
            ("batches.meta", "label_names") if classes == 10 else ("meta", "fine_label_names")
        )
        (folder / name).write_bytes(python2_pickle({key: names, "num_vis": 3072}))


def assert_pickle(data, batch):
    """Python reads the hand-made pickle as what it stands for."""
    content = pickle.loads(data, encoding="bytes")
    np.testing.assert_array_equal(content[b"data"], batch["data"])
    assert content[b"coarse_labels"] == batch["coarse_labels"]
