"""PyTorch's files, read without PyTorch, against `torch.load`: equal to the bit."""

import argparse
import collections
import io
import pathlib
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from deit_jax.inert_pickle import InertObject
from deit_jax.weights.formats.pth import is_tensor, read_pth

CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
TYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.uint16,
    torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]  # fmt: skip
SHAPES = [(), (1,), (7,), (0,), (3, 0, 2), (2, 3), (1, 5, 1, 4), (2, 3, 2, 3, 2)]


def save(path, content, zipped=True, protocol=2):
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


def bits(tensor):
    """The bytes of a torch tensor in C order, whatever its type."""
    # clone: `contiguous` keeps odd strides of a single element.
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def assert_same(array, tensor):
    assert isinstance(array, np.ndarray)
    assert array.shape == tuple(tensor.shape)
    assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
    assert array.flags.c_contiguous
    assert array.tobytes() == bits(tensor)


def random_tensor(dtype, shape, generator):
    """Random bits: also NaNs with a payload, infinities, denormal numbers."""
    count = int(np.prod(shape))
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    data = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator)
    return data.to(torch.uint8).view(dtype).reshape(shape)


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_types_and_shapes(tmp_path, zipped, protocol):
    generator = torch.Generator().manual_seed(protocol)
    content = {
        f"{dtype}{shape}": random_tensor(dtype, shape, generator)
        # PyTorch writes the newer types into streams, but cannot read them from there.
        for dtype in (TYPES if zipped else TYPES[:12])
        for shape in SHAPES
    }
    path = save(tmp_path / "x.pth", content, zipped, protocol)
    # Its own restricted reader knows protocol 2 only.
    expected = torch.load(path, weights_only=False)
    found = read_pth(path)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert_same(found[name], tensor)


@CONTAINERS
def test_views_have_the_right_elements(tmp_path, zipped):
    base = torch.arange(120.0).reshape(2, 3, 4, 5)
    views = [
        base, base.permute(3, 1, 0, 2), base[1], base[:, 1:, ::2],
        base[0, 0, 0].expand(6, 5), base[..., 2], base.flatten()[7:113:11], base[1:, :0],
        base.as_strided((3, 4), (1, 2), 5), base.unfold(3, 2, 1), torch.zeros(()).expand(3, 2),
    ]  # fmt: skip
    path = save(tmp_path / "x.pth", views, zipped)
    found = read_pth(path)
    for array, tensor in zip(found, torch.load(path, weights_only=True), strict=True):
        assert_same(array, tensor)
    # One storage, read once; what shares memory must not be written to.
    assert not found[0].flags.writeable
    assert np.shares_memory(found[0], found[2])


@CONTAINERS
def test_random_views_against_torch(tmp_path, zipped):
    rng = np.random.default_rng(0)
    base = torch.arange(2000, dtype=torch.int32)
    views = []
    while len(views) < 150:
        shape = tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 6)))
        stride = tuple(int(n) for n in rng.integers(0, 90, len(shape)))
        offset = int(rng.integers(0, 50))
        views.append(base.as_strided(shape, stride, offset))
    path = save(tmp_path / "x.pth", views, zipped)
    for array, tensor in zip(read_pth(path), views, strict=True):
        assert_same(array, tensor)


@CONTAINERS
def test_a_training_checkpoint_of_the_reference_is_inert_data(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    args = argparse.Namespace(
        model="deit_tiny", lr=5e-4, betas=None, distributed=False, output_dir=pathlib.Path("a/b")
    )
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
        "args": args,
        "best": np.float64(81.5),
        "device": torch.device("cuda:0"),
        "size": torch.Size([1, 2]),
        "bytes": b"\xff\x00",
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    found = read_pth(save(tmp_path / "x.pth", content, zipped))
    assert found["args"] == vars(args) | {"output_dir": "a/b"}
    assert type(found["args"]) is InertObject
    assert type(found["model"]) is dict
    for name, tensor in model.state_dict().items():
        assert_same(found["model"][name], tensor)
    for index, state in optimizer.state_dict()["state"].items():
        for name, tensor in state.items():
            assert_same(found["optimizer"]["state"][index][name], tensor)
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert found["lr_scheduler"]["milestones"] == collections.Counter([1, 2])
    assert found["scaler"] == content["scaler"]
    assert (found["epoch"], found["best"], found["bytes"]) == (3, 81.5, b"\xff\x00")
    assert (found["device"], found["size"]) == ("cuda:0", (1, 2))
    assert_same(found["parameter"], torch.ones(2))


def test_only_what_is_selected_is_read(tmp_path):
    content = {"model": {"a": torch.ones(3)}, "optimizer": {"b": torch.zeros(4)}, "epoch": 1}
    path = save(tmp_path / "x.pth", content)
    seen = {}

    def select(content):
        seen.update(content)
        return content["model"]

    assert_same(read_pth(path, select)["a"], torch.ones(3))
    assert is_tensor(seen["optimizer"]["b"])
    assert seen["epoch"] == 1


def test_damage_in_what_is_not_read_is_found_too(tmp_path):
    marked = torch.tensor([1.25, 77.5])
    path = save(tmp_path / "x.pth", {"model": {"a": torch.ones(3)}, "optimizer": marked})
    data = path.read_bytes()
    path.write_bytes(data.replace(marked.numpy().tobytes(), bytes(8)))
    with pytest.raises(ValueError, match="is damaged: Bad CRC-32"):
        read_pth(path, lambda content: content["model"])


@CONTAINERS
def test_memory_is_that_of_the_selected_tensors(tmp_path, zipped):
    mebibyte = 2**20
    content = {
        "model": {str(i): torch.zeros(mebibyte // 4) for i in range(8)},
        "optimizer": {str(i): torch.zeros(mebibyte // 4) for i in range(24)},
    }
    path = save(tmp_path / "x.pth", content, zipped)
    tracemalloc.start()
    found = read_pth(path, lambda content: content["model"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 8
    # The 8 MiB that are wanted, and of the 32 no more than the start of a stream, where the
    # pickles are looked for, or some chunks of 1 MiB.
    assert peak < (13 if zipped else 29) * mebibyte


def pickled(*instructions):
    """A stream file around an object that is given as bytes of pickle, as old PyTorch wrote it."""
    magic, version = 0x1950A86A20F9469CFC6C, 1001
    system = {"protocol_version": version, "little_endian": True, "type_sizes": {"int": 4}}
    head = b"".join(pickle.dumps(value, protocol=2) for value in (magic, version, system))
    values = struct.pack("<q", 6) + np.arange(6, dtype=np.float32).tobytes()
    return head + b"".join(instructions) + pickle.dumps(["7"], protocol=2) + values


STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x017U\x03cpuK\x06"
V1 = b"ctorch._utils\n_rebuild_tensor\n("


@pytest.mark.parametrize(
    ("instructions", "shape"),
    [
        # Python 2's texts, the first rebuild function, a view of a part of a storage.
        (b"\x80\x02}U\x01a" + V1 + STORAGE + b"NtQK\x01K\x02K\x02\x86K\x03K\x01\x86tRs.", (2, 2)),
        (
            b"\x80\x02}U\x01a"
            + V1
            + STORAGE
            + b"U\x019K\x02K\x04\x87tQK\x00K\x04\x85K\x01\x85tRs.",
            (4,),
        ),
        # A Parameter with the state that PyTorch 0.3 gave it.
        (
            b"\x80\x02}U\x01actorch.nn.parameter\nParameter\n"
            + V1
            + STORAGE
            + b"NtQK\x01K\x02K\x02\x86K\x03K\x01\x86tR\x85R(\x88\x89}tbs.",
            (2, 2),
        ),
        # Python 2's OrderedDict: its items as a list of lists.
        (
            b"\x80\x02ccollections\nOrderedDict\n]](U\x01a"
            + V1
            + STORAGE
            + b"NtQK\x01K\x02K\x02\x86K\x03K\x01\x86tRea\x85R.",
            (2, 2),
        ),
    ],
)
def test_files_of_old_versions(tmp_path, instructions, shape):
    path = tmp_path / "x.pth"
    path.write_bytes(pickled(instructions))
    found = read_pth(path)
    values = np.arange(6, dtype=np.float32)
    expected = values[[[1, 2], [4, 5]]] if shape == (2, 2) else values[2:6]
    np.testing.assert_array_equal(found["a"], expected)


def test_the_old_forms_are_those_that_torch_reads(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(
        pickled(b"\x80\x02}U\x01a" + V1 + STORAGE + b"NtQK\x01K\x02K\x02\x86K\x03K\x01\x86tRs.")
    )
    assert_same(read_pth(path)["a"], torch.load(path, weights_only=False)["a"])


def test_neither_torch_nor_jax_is_imported(tmp_path):
    path = save(tmp_path / "x.pth", {"a": torch.ones(2)})
    program = (
        "import sys; from deit_jax.weights.formats.any import read_file; "
        f"assert read_file({str(path)!r}).tensors['a'].tolist() == [1, 1]; "
        "assert not {'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@CONTAINERS
def test_a_mention_of_a_type_remains_a_name(tmp_path, zipped):
    found = read_pth(save(tmp_path / "x.pth", {"type": torch.float32}, zipped))
    assert found["type"].name == "torch.float32"


def test_what_torch_would_compute_is_refused(tmp_path):
    conjugate = torch.ones(2, dtype=torch.complex64).conj()
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    for content, reason in (
        (conjugate, "flags that only PyTorch can apply"),
        (quantized, "mentions 'torch._utils._rebuild_qtensor'"),
        (torch.nn.Linear(1, 1), "mentions 'torch.nn.modules.linear.Linear'"),
        (torch.eye(2).to_sparse(), "mentions 'torch._utils._rebuild_sparse_tensor'"),
    ):
        path = save(tmp_path / "x.pth", {"a": content})
        with pytest.raises(ValueError, match=reason) as error:
            read_pth(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_torchscript_is_no_file_of_weights(tmp_path):
    path = tmp_path / "x.pt"
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="is a TorchScript program"):
        read_pth(path)
