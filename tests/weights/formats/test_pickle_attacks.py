"""Pickles made to do harm: each is refused in one sentence, and nothing of it happens."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from deit_jax import inert_pickle
from deit_jax.weights.formats.any import read_file
from deit_jax.weights.formats.pth import read_pth
from tests.weights.formats.forged import Call, archive, state_dict, stream, tensor, text

# Of instructions; a million, as otherwise, take seconds.
MOST = 100_000


def test_the_harmless_forms_of_the_attacks_are_read(tmp_path):
    path = tmp_path / "x.pth"
    values = np.arange(4, dtype=np.float32)
    for content in (
        archive(state_dict(tensor()), {"data/0": values.tobytes()}),
        # The older form has one more field: no part of the storage, but all of it.
        stream(state_dict(tensor(part=b"N")), ["0"], struct.pack("<q", 4) + values.tobytes()),
    ):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_file(path).tensors["t0"], values)
        np.testing.assert_array_equal(torch.load(path, weights_only=False)["t0"], values)


CODE = {
    "os.system": pickle.dumps(Call(os.system, "touch harm"), 2),
    "eval": pickle.dumps(Call(eval, "__import__('os').getpid()"), 2),
    "exec": pickle.dumps(Call(exec, "raise SystemExit"), 4),
    "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 2),
    "open": pickle.dumps(Call(open, "harm", "w"), 2),
    "mention": b"\x80\x02cos\nsystem\n.",
    "stack global": b"\x80\x04" + b"\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93)R.",
    "within torch": b"\x80\x02ctorch.serialization\nload\n" + text("x") + b"\x85R.",
    "hub": b"\x80\x02ctorch.hub\nload_state_dict_from_url\n" + text("http://x") + b"\x85R.",
    "newobj": b"\x80\x02csubprocess\nPopen\n" + text("id") + b"\x85\x81.",
    "inst": b"(S'id'\nios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\n" + text("id") + b"o.",
    "ext": b"\x80\x02\x82\x01.",
    "protocol 0": b"cos\nsystem\n(S'id'\ntR.",
    "in a key": b"\x80\x02}cos\nsystem\n" + text("id") + b"\x85RK\x01s.",
    "hidden by a pop": b"\x80\x02cos\nsystem\n0}.",
    "class of tensors": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ntR.",
    "numpy": pickle.dumps(np.array([Call(os.system, "id")], dtype=object), 2),
    "a module": pickle.dumps({"model": Call(print, "x")}, 2),
    "text that is a name": b"\x80\x04" + text("os") + text("system") + b"\x93.",
}


@pytest.mark.parametrize("container", [archive, stream])
@pytest.mark.parametrize("name", CODE)
def test_code_is_refused_and_not_run(refuse, container, name):
    reason = refuse(container(CODE[name]))
    assert reason.startswith(("mentions '", "uses the pickle instruction "))


@pytest.mark.parametrize("place", range(3))
def test_code_in_the_other_pickles_of_a_stream(refuse, place):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts[place] = Call(os.system, "id")
    content = b"".join(pickle.dumps(part, 2) for part in parts)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    assert refuse(content if place else magic + content).startswith("mentions 'posix.system'")


TRICKS = {
    # What calls a thing that was not imported by name.
    "calls a dict": b"\x80\x02})R.",
    "calls a result": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
    "calls a text": b"\x80\x02" + text("os.system") + b")R.",
    "calls a type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "builds a type": b"\x80\x02ctorch\nFloatStorage\n}" + text("x") + b"K\x01sb.",
    "builds a function": b"\x80\x02ccollections\nOrderedDict\n}b.",
    "attributes of a namespace": b"\x80\x02cargparse\nNamespace\n)\x81K\x01b.",
    "arguments that are no tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "too many arguments": b"\x80\x02cargparse\nNamespace\nK\x01\x85R.",
    # Memo and stack.
    "memo of nothing": b"\x80\x02h\x07.",
    "memo overwritten": b"\x80\x02}q\x00]q\x00h\x00.",
    "memo of an empty stack": b"\x80\x02q\x00}.",
    "huge memo": b"\x80\x02}r\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
    "empty stack": b"\x80\x02.",
    "two results": b"\x80\x02}}.",
    "open mark": b"\x80\x02(}.",
    "no mark": b"\x80\x02}K\x01K\x02u.",
    "append below the mark": b"\x80\x02](a.",
    "popped": b"\x80\x02}}0.",
    "duplicated": b"\x80\x02}2.",
    "append to a dict": b"\x80\x02}K\x01a.",
    "items of a list": b"\x80\x02]K\x01K\x02s.",
    "key without a value": b"\x80\x02}(K\x01u.",
    "key twice": b"\x80\x02}(K\x01K\x02K\x01K\x03u.",
    "dict as a key": b"\x80\x02}}K\x01s.",
    "truncated": b"\x80\x02}(X\x05\x00\x00\x00ab",
    "no end": b"\x80\x02}",
    "endless text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "endless bytes": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00a.",
    "negative length": b"\x80\x02T\xff\xff\xff\xffabc.",
    "no text": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
    "unknown protocol": b"\x80\x09\x97.",
    "unknown instruction": b"\x80\x02\xff.",
    "long number": b"\x80\x02\x8b\x00\x00\x10\x00" + b"\1" * 2**20 + b".",
    "protocol 0 number": b"I" + b"9" * 5000 + b"\n.",
    # Structure.
    "doubling tuples as a key": b"\x80\x02})"
    + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60)) + b"K\x01s.",
    "many objects": b"\x80\x02" + b"}" * (2 * MOST),
    "not a dict": b"\x80\x02K\x07.",
    "empty": b"\x80\x02}.",
    # Persistent ids.
    "persistent text": b"\x80\x02" + text("0") + b"Q.",
    "protocol 0 persistent": b"P0\n.",
    "persistent module": b"\x80\x02(" + text("module") + b"ctorch\nFloatStorage\nNNtQ.",
    "storage of a function": b"\x80\x02(" + text("storage")
    + b"ccollections\nOrderedDict\n" + text("0") + text("cpu") + b"K\x04tQ.",
    "storage without a number": b"\x80\x02(" + text("storage")
    + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + text("4") + b"tQ.",
}  # fmt: skip


NESTED = {
    "a list in itself": b"\x80\x02]q\x01h\x01a.",
    "a dict in itself": b"\x80\x02}q\x01" + text("a") + b"h\x01s.",
    "deep lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
}


@pytest.mark.parametrize("name", NESTED)
def test_objects_within_objects(tmp_path, name):
    path = tmp_path / "x.pth"
    for container in (archive, stream):
        path.write_bytes(container(NESTED[name]))
        with pytest.raises(ValueError, match="nested more than 64 deep, or in a circle"):
            read_pth(path)
        # As weights they are refused before that.
        with pytest.raises(ValueError, match="holds"):
            read_file(path)


def test_lists_that_double_take_no_time(tmp_path):
    lists = b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 60))
    path = tmp_path / "x.pth"
    path.write_bytes(archive(b"\x80\x02(" + lists + b"t."))
    # The last stands for 2**59 lists.
    last = read_pth(path)[-1]
    assert last[0] is last[1]


# Where without the check something else might be wrong with the file.
REASONS = {
    "calls a type": "calls something that is no known function",
    "huge memo": "refers to an object that it does not have",
    "memo overwritten": "remembers an object under a number that is taken",
    "two results": "its objects do not fit together",
    "open mark": "its objects do not fit together",
    "key twice": "the key '1' twice",
    "dict as a key": "a dict as a key",
    "doubling tuples as a key": "a tuple as a key",
    "many objects": "more objects than any file of weights",
}


@pytest.mark.parametrize("container", [archive, stream])
@pytest.mark.parametrize("name", TRICKS)
def test_tricks_of_pickles(refuse, container, name, monkeypatch):
    monkeypatch.setattr(inert_pickle, "_MOST_INSTRUCTIONS", MOST)
    assert REASONS.get(name, "") in refuse(container(TRICKS[name]))


TENSORS = {
    "beyond the storage": tensor(shape=(5,)),
    "offset beyond": tensor(offset=1),
    "strides beyond": tensor(shape=(2, 2), strides=(3, 1)),
    "negative offset": tensor(offset=-1),
    "negative stride": tensor(strides=(-1,), offset=3),
    "negative size": tensor(shape=(-4,)),
    "overflowing product": tensor(shape=(2**32, 2**32), strides=(0, 0)),
    "overflowing stride": tensor(shape=(2,), strides=(2**62,)),
    "overflow to inside": tensor(shape=(2,), strides=(2**64,)),
    "empty and overflowing": tensor(shape=(0, 2**63), strides=(1, 1)),
    "expanded without end": tensor(shape=(2**34,), strides=(0,)),
    "too many dimensions": tensor(shape=(1,) * 65, strides=(1,) * 65),
    "shape and strides": tensor(shape=(2, 2)),
    "shape of truth": tensor(shape=(True,)),
    "shape of fractions": tensor(shape=(4.0,)),
    "no storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x04\x85K\x01\x85\x89NtR",
    "missing storage": tensor(key="1"),
    "storage outside": tensor(key="../version"),
    "absolute storage": tensor(key="/etc/passwd"),
    "larger storage": tensor(size=5),
    "smaller storage": tensor(size=3, shape=(3,)),
    "wider type": tensor(storage="DoubleStorage"),
    "narrower type": tensor(storage="HalfStorage"),
    "unknown type": tensor(storage="QInt8Storage"),
    "negative storage": tensor(size=-4, shape=(0,)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_their_bytes(refuse, name):
    storage = struct.pack("<q", 4) + b"\0" * 16
    for content in (
        archive(state_dict(TENSORS[name])),
        stream(state_dict(TENSORS[name]), ["0"], storage),
    ):
        reason = refuse(content)
        assert "tensor" in reason or "storage" in reason


def test_one_storage_in_two_ways(refuse):
    both = state_dict(tensor(), tensor(storage="IntStorage"))
    assert "described in two ways" in refuse(archive(both))
    assert "described in two ways" in refuse(stream(both, ["0"], struct.pack("<q", 4) + bytes(16)))


def test_bytes_that_are_no_booleans(refuse):
    pickled = state_dict(tensor(storage="BoolStorage"))
    assert "booleans" in refuse(archive(pickled, {"data/0": b"\0\1\2\0"}))
