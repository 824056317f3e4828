"""Where one process stands among those of a run, and which of its machine's GPUs it takes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 8476
"""Where an address comes without a port."""

_DEVICES: Final = "CUDA_VISIBLE_DEVICES"
# SLURM has then bound devices to each task; all of them count from 0.
_BOUND: Final = ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK")


@dataclass(frozen=True)
class ProcessPlace:
    """One of the processes of a run, as flags or a scheduler's variables say.

    Attributes:
        count: processes of the run, more than one.
        index: of this one, from 0.
        host: name or address of the machine of process 0, where all meet.
        port: likewise.
        told_by: who says so, for messages.
        machines: on how many they are; 0 where that is not said.
    """

    count: int
    index: int
    host: str
    port: int
    told_by: str
    machines: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"{self.told_by} says that this is process {self.index} of {self.count}, counted "
                "from 0: that cannot be."
            )

    @property
    def address(self) -> str:
        """Address of process 0, as it is written."""
        return write_address(self.host, self.port)


@dataclass(frozen=True)
class Beside:
    """The processes of a run on one machine: which of them this is, and how many there are."""

    index: int
    count: int


def read_address(text: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT", "HOST", "[IPV6]:PORT".

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s/]+))(?::(\d{1,5}))?", text.strip())
    if not match or (port := int(match[3] or DEFAULT_PORT)) > 65535:
        raise ValueError(
            f"{text!r} is no address of a coordinator; write HOST:PORT, such as 10.0.0.1:8476."
        )
    return match[1] or match[2], port


def write_address(host: str, port: int) -> str:
    """Return "HOST:PORT", an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """Return how many NVIDIA GPUs a process with these variables would see."""
    if (listed := environ.get(_DEVICES)) is not None:
        return len([name for name in listed.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in devices.glob("nvidia*") if path.name[6:].isdecimal()])


def share_of_gpus(
    beside: Beside, environ: Mapping[str, str], gpus: int | None = None
) -> Sequence[int] | None:
    """Return which of the GPUs that it sees are for one of the processes of a machine.

    Args:
        beside: which process.
        environ: its variables.
        gpus: that it sees; None to look.

    Returns:
        Numbers of them, or None where it takes whatever it sees: it is alone on its machine, has
        no GPUs, sees one (then its scheduler has bound it), or was told by the scheduler or
        JAX_LOCAL_DEVICE_IDS.

    Raises:
        ValueError: they do not divide.
    """
    platforms = environ.get("JAX_PLATFORMS") or "cuda"
    told = environ.get("JAX_LOCAL_DEVICE_IDS") or any(name in environ for name in _BOUND)
    if beside.count == 1 or told or not re.search("cuda|gpu", platforms):
        return None
    gpus = visible_gpus(environ) if gpus is None else gpus
    if gpus <= 1:
        return None
    if gpus % beside.count:
        raise ValueError(
            f"{gpus} GPUs do not divide among the {beside.count} processes on this machine; start "
            f"a number that divides them, or choose with {_DEVICES}."
        )
    each = gpus // beside.count
    return range(beside.index * each, (beside.index + 1) * each)
