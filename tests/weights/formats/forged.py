"""PyTorch's files, built instruction by instruction."""

import io
import pickle
import pickletools
import struct
import warnings
import zipfile


def archive(pickled, members=None, root="archive", byteorder="little", **options):
    """A zip file as PyTorch writes it around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        file.writestr(f"{root}/data.pkl", pickled)
        file.writestr(f"{root}/byteorder", byteorder)
        for name, content in (members or {"data/0": b"\0" * 16}).items():
            file.writestr(f"{root}/{name}", content)
        file.writestr(f"{root}/version", "3\n")
    return buffer.getvalue()


def stream(pickled, keys=(), storages=b""):
    """The older container around a pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = (0x1950A86A20F9469CFC6C, 1001, system)
    dumped = [pickle.dumps(value, 2) for value in head]
    return b"".join([*dumped, pickled, pickle.dumps(list(keys), 2), storages])


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(shape=(4,), strides=(1,), offset=0, size=4, key="0", storage="FloatStorage", part=b""):
    """The instructions that rebuild one tensor."""

    def number(value):
        # Without the first instruction, the last and those that fill the memo.
        return pickletools.optimize(pickle.dumps(value, 2))[2:-1]

    identity = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu")
    arguments = number(offset) + number(shape) + number(strides) + number(False) + b"N"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity + number(size) + part + b"tQ" + arguments + b"tR"
    )  # fmt: skip


def state_dict(*tensors):
    items = b"".join(text(f"t{i}") + value for i, value in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."
