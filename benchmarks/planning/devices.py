"""Descriptions of devices, one file each in benchmarks/devices."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "devices"


@dataclass(frozen=True)
class Device:
    """What the roofline and the compiler have to know of a device.

    Attributes:
        name: of its file.
        title: as its maker calls it.
        platform: "gpu" or "tpu".
        flops_per_second: that products can reach, by type of their factors.
        bytes_per_second: that kernels can reach in its main memory.
        launch_seconds: that it costs to start a kernel; what takes less by itself is "tiny".
        memory_bytes: of its main memory.
        source: of these numbers.
        compiler_target: of a GPU, XLA's description of it as text; of a TPU, its generation.
        smallest: of a TPU, the least that can be had, as "1x1".
    """

    name: str
    title: str
    platform: str
    flops_per_second: dict[str, float]
    bytes_per_second: float
    launch_seconds: float
    memory_bytes: int
    source: str
    compiler_target: str
    smallest: str = ""


@dataclass(frozen=True)
class Wanted:
    """A device and how many of them: a number of GPUs, the topology of TPUs."""

    device: Device
    topology: str

    def __str__(self) -> str:
        single = self.topology in ("1", self.device.smallest)
        return self.device.name + ("" if single else f":{self.topology}")


def known_devices() -> list[str]:
    """Return the names of all that are described."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_wanted(text: str) -> Wanted:
    """Read "h200", "h200:8", "v5e" or "v5e:4x4".

    Raises:
        ValueError: there is no such device, or not so many of it; one sentence.
    """
    name, colon, topology = text.partition(":")
    if name not in known_devices():
        raise ValueError(
            f"{name!r} is no device that is described; choose of {', '.join(known_devices())}, or "
            f"describe it in benchmarks/devices/{name or 'NAME'}.toml."
        )
    device = read_device(name)
    form, example = (
        (r"[1-9][0-9]*", "8") if device.platform == "gpu" else (r"[1-9][0-9x]*[0-9]", "4x4")
    )
    if colon and not re.fullmatch(form, topology):
        raise ValueError(f"{text!r} does not say how many: write {name} or {name}:{example}.")
    return Wanted(device, topology or device.smallest or "1")


def read_device(name: str) -> Device:
    """Read a description; the file says what its fields are."""
    with open(FOLDER / f"{name}.toml", "rb") as file:
        return Device(name=name, **tomllib.load(file))
