"""The hosts of a TPU pod, from the variables of Google Kubernetes Engine or a TPU VM's own server.

On a TPU VM the names of the hosts are asked of its metadata server, a fixed address inside the
machine; nowhere else is anything asked.
"""

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HOSTS: Final = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
_GOOGLE, _NETWORK_CARD = "0x1ae0", "0x0042"
_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Pod:
    """A pod, seen from one of its hosts.

    Attributes:
        count: hosts, of all slices.
        index: of this one, from 0.
        host: name or address of the first.
    """

    count: int
    index: int
    host: str


def read_pod(
    environ: Mapping[str, str],
    ask: Callable[[str], str] | None = None,
    pci: Path = Path("/sys/bus/pci/devices"),
) -> Pod | None:
    """Return the pod that this host is part of; None where no program runs on TPUs.

    Args:
        environ: variables.
        ask: returns an attribute of the metadata server; None for the real one.
        pci: where the system lists its cards.

    Raises:
        ValueError: what is said of the pod cannot be.
    """
    platforms = environ.get("JAX_PLATFORMS") or "tpu"
    if "tpu" not in platforms.split(",") or not has_tpu(environ, pci):
        return None
    listed = next((environ[name] for name in _HOSTS if environ.get(name)), "")
    if listed:
        return _pod([_host(word) for word in listed.split(",")], _index(environ), environ)
    if environ.get("TPU_SKIP_MDS_QUERY"):
        return None
    ask = ask or _ask_metadata_server
    try:
        hosts = [_host(word) for word in ask("worker-network-endpoints").split(",")]
        own = int(ask("agent-worker-number"))
        slices = dict(re.findall(r"^\s*(MEGASCALE_\w+):\s*'?([^'\n]*)'?", ask("tpu-env"), re.M))
    except (OSError, ValueError):
        # A VM that is not part of a pod, or not Google's.
        return None
    return _pod(hosts, own, {**slices, **environ})


def has_tpu(environ: Mapping[str, str], pci: Path) -> bool:
    """Return whether the machine has TPUs, as its variables or its cards say."""
    if environ.get("TPU_WORKER_ID") is not None and any(environ.get(name) for name in _HOSTS):
        return True
    for card in pci.glob("*"):
        try:
            vendor, kind = ((card / name).read_text().strip() for name in ("vendor", "device"))
        except OSError:
            continue
        if vendor == _GOOGLE and kind != _NETWORK_CARD:
            return True
    return False


def _pod(hosts: list[str], own: int, slices: Mapping[str, str]) -> Pod:
    if not 0 <= own < len(hosts):
        raise ValueError(
            f"This is host {own} of a TPU slice of {len(hosts)} hosts, counted from 0: that cannot "
            "be."
        )
    count, index = (
        int(slices.get(name) or default)
        for name, default in (("MEGASCALE_NUM_SLICES", "1"), ("MEGASCALE_SLICE_ID", "0"))
    )
    first = _host(slices.get("MEGASCALE_COORDINATOR_ADDRESS", "")) or hosts[0]
    return Pod(count * len(hosts), index * len(hosts) + own, first)


def _index(environ: Mapping[str, str]) -> int:
    text = environ.get("TPU_WORKER_ID", "")
    if not text.isdecimal():
        raise ValueError(f"The variable TPU_WORKER_ID is {text!r} where a host's number should be.")
    return int(text)


def _host(word: str) -> str:
    """Return the host of "HOST", "HOST:PORT" or the older "NAME:ID:ADDRESS"."""
    parts = word.strip().split(":")
    return parts[2] if len(parts) == 3 else parts[0]


def _ask_metadata_server(name: str) -> str:
    server = os.environ.get("GCE_METADATA_IP", "169.254.169.254")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    # A proxy must not be asked for an address inside the machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_SECONDS) as answer:
        return answer.read(2**20).decode("utf-8", "replace")
