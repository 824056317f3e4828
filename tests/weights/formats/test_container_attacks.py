"""Archives, streams and headers made to do harm: refused in one sentence, to no effect."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tests.weights.formats.forged import Call, archive, state_dict, stream, tensor

GOOD = state_dict(tensor())


@pytest.mark.parametrize(
    "name", ["../../harm", "/etc/harm", "data/../../harm", "data\\harm", "./x", "a//b", "data/"]
)
def test_paths_in_names_of_zip_members(refuse, tmp_path, name):
    before = sorted(path.name for path in tmp_path.parent.iterdir())
    assert refuse(archive(GOOD, {"data/0": bytes(16), name: b"x"})).startswith("has a zip member")
    assert sorted(path.name for path in tmp_path.parent.iterdir()) == before


def test_absolute_root(refuse):
    assert "zip member with the name" in refuse(archive(GOOD, root=""))
    assert "zip member with the name" in refuse(archive(GOOD, root=".."))


def test_zip_bombs(refuse):
    pickled = state_dict(tensor(shape=(2**24,), size=2**24))
    bomb = archive(pickled, {"data/0": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**17
    assert "compressed zip member" in refuse(bomb)
    # Many members over the same bytes.
    parts = [state_dict(*(tensor(key=str(i), size=2**18, shape=(2**18,)) for i in range(50)))]
    whole = archive(parts[0], {f"data/{i}": bytes(2**20 if i == 0 else 0) for i in range(50)})
    assert "longer than the file" in refuse(overlapping(whole))


def overlapping(content):
    """Let all storages of an archive point at the bytes of the first."""
    data = bytearray(content)
    start = content.index(b"PK\1\2")
    entries = []
    while data[start : start + 4] == b"PK\1\2":
        name, extra, comment = struct.unpack_from("<3H", data, start + 28)
        entries.append((start, bytes(data[start + 46 : start + 46 + name])))
        start += 46 + name + extra + comment
    (first,) = [place for place, name in entries if name.endswith(b"/data/0")]
    for place, name in entries:
        if b"/data/" in name:
            data[place + 16 : place + 28] = data[first + 16 : first + 28]
            data[place + 42 : place + 46] = data[first + 42 : first + 46]
    return bytes(data)


def patched(content, old, new):
    assert content.count(old) >= 1 and len(old) == len(new)
    return content.replace(old, new)


def test_containers_that_contradict_themselves(refuse):
    good = archive(GOOD)
    directory = good.index(b"PK\1\2")
    assert "something follows its objects" in refuse(archive(GOOD + b"x"))
    assert refuse(good + b"x") and refuse(b"PK\3\4" + good) and refuse(good + good)
    assert refuse(good[:directory] + good[good.index(b"PK\5\6") :])
    # Two names for one member, in the archive's list and before its bytes.
    renamed = good[:directory] + patched(good[directory:], b"data/0", b"data/1")
    assert refuse(renamed)
    assert "twice" in refuse(archive(GOOD, {"data/0": bytes(16), "data.pkl": GOOD}))
    assert "several directories" in refuse(patched(good, b"archive/version", b"another/version"))
    assert "big-endian" in refuse(archive(GOOD, byteorder="big"))


def test_encrypted_members(refuse):
    data = bytearray(archive(GOOD))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refuse(bytes(data))


def test_altered_bytes_of_a_zip_archive(refuse):
    values = bytes(range(16))
    good = archive(GOOD, {"data/0": values})
    for i in range(16):
        wrong = bytearray(values)
        wrong[i] ^= 1
        assert "CRC" in refuse(patched(good, values, bytes(wrong)))


def test_streams_of_wrong_length(refuse):
    storage = struct.pack("<q", 4) + bytes(16)
    assert refuse(stream(GOOD, ["0"], storage[:-1])) and refuse(stream(GOOD, ["0"], storage + b"x"))
    assert refuse(stream(GOOD, ["0"], struct.pack("<q", 2**60) + bytes(16)))
    assert refuse(stream(GOOD, ["0"], struct.pack("<q", -1) + bytes(16)))
    assert refuse(stream(GOOD, ["0"], b"\4")) and refuse(stream(GOOD, [], storage))
    assert refuse(stream(GOOD, ["0", "0"], storage * 2)) and refuse(stream(GOOD, ["1"], storage))
    huge = state_dict(tensor(shape=(2**40,), size=2**40))
    assert refuse(stream(huge, ["0"], struct.pack("<q", 2**40) + bytes(16)))


def safetensors(header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(4,), start=0, end=16):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HEADERS = {
    "giant header": safetensors({"a": entry()}, length=2**62),
    "header of the largest size": safetensors({"a": entry()}, length=2**64 - 1),
    "header beyond the file": safetensors({"a": entry()}, length=99_000_000),
    "no header": safetensors({"a": entry()}, length=0),
    "only a length": struct.pack("<Q", 2) + b"{",
    "overlap": safetensors({"a": entry(), "b": entry(shape=(2,), start=8)}),
    "same bytes": safetensors({"a": entry(), "b": entry()}),
    "gap": safetensors({"a": entry(shape=(1,), end=4), "b": entry(shape=(2,), start=8)}),
    "bytes left over": safetensors({"a": entry(shape=(2,), end=8)}),
    "too few bytes": safetensors({"a": entry()}, bytes(8)),
    "backwards": safetensors({"a": entry(start=16, end=0)}),
    "shape and bytes": safetensors({"a": entry(shape=(3,))}),
    "overflowing shape": safetensors({"a": entry(shape=(2**62, 4))}),
    "overflow to the right size": safetensors({"a": entry(shape=(2**63 + 2, 2))}),
    "negative shape": safetensors({"a": entry(shape=(-2, -2))}),
    "fraction": safetensors({"a": entry(shape=(4.0,))}),
    "empty and giant": safetensors({"a": entry(shape=(2**63, 0), end=0)}, b""),
    "many dimensions": safetensors({"a": entry(shape=(1,) * 70 + (4,))}),
    "unknown type": safetensors({"a": entry("F128", (1,))}),
    "type that numpy has not": safetensors({"a": entry("F8_E8M0", (16,))}),
    "not booleans": safetensors({"a": entry("BOOL", (16,))}, bytes(range(16))),
    "a name twice": safetensors(
        b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(), json.dumps(entry("I32")).encode()))
    ),
    "metadata twice": safetensors(b'{"__metadata__":{"a":"1","a":"2"}}', b""),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "a": entry()}),
    "deep": safetensors(b'{"a":' + b"[" * 100_000),
    "no object": safetensors(b"{" * 8),
    "no text": safetensors(b'{"\xff":1}'),
    "no tensors": safetensors({}, b""),
}


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_headers(refuse, name):
    assert refuse(HEADERS[name], "weights.safetensors")


def test_nothing_that_looks_like_another_format_is_read(refuse):
    numpy_file = io.BytesIO()
    np.savez(numpy_file, a=np.ones(2))
    assert "not one that PyTorch writes" in refuse(numpy_file.getvalue())
    assert "no file of weights" in refuse(pickle.dumps(Call(os.system, "id"), 2))
    assert "no file of weights" in refuse(b"\x80\x04" + bytes(600))
    assert "empty" in refuse(b"")
