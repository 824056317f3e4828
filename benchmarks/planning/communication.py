"""What crosses between devices in a step, by formula: bytes against the bandwidth of links.

A model, not a measurement: rings at the full speed of their links, no overlap with computing.
Sources of the bandwidths: NVIDIA's data sheets of the H200 (NVLink 4, 900 GB/s both ways together)
and of ConnectX-7 (400 Gbit/s, one to each GPU of a DGX H200).
"""

from dataclasses import dataclass

_FLOAT32 = 4


@dataclass(frozen=True)
class Links:
    """Bandwidths that one device has in each direction, in bytes a second.

    Attributes:
        inside: to the others of its node.
        between: to other nodes.
        node: devices of a node.
    """

    inside: float
    between: float
    node: int


H200 = Links(inside=450e9, between=50e9, node=8)


@dataclass(frozen=True)
class Step:
    """What a device sends in a step, in bytes, and the time that takes its links, in seconds."""

    bytes_inside: float
    bytes_between: float
    seconds: float


def communication(
    parameters: int,
    devices: int,
    fsdp: int,
    links: Links = H200,
    *,
    gathers: int = 1,
) -> Step:
    """Return what a step costs: gathers of weights, scattered sums and sums of gradients.

    A ring of n sends (n - 1) / n of an array to gather it or to scatter its sum, twice that to sum
    it everywhere (Thakur et al. 2005, doi 10.1177/1094342005051521). Along `fsdp` weights are
    gathered and gradients scattered; along `data` what each device then holds of the gradients is
    summed. A sum that goes beyond a node is done in two levels: scattered and gathered inside,
    summed between.

    Args:
        parameters: of the student; all are taken to be split.
        devices: in all.
        fsdp: over how many the state is split, a divisor of them; they are neighbours.
        links: of a device.
        gathers: of the weights: 1, or 2 with `training.remat=blocks`.
    """
    # Weights, too, cross in float32: XLA plans it so for GPUs, though bfloat16 is asked for.
    array = parameters * _FLOAT32
    near, far = _levels(fsdp, links.node)
    inside = (gathers + 1) * array * _share(near)
    between = (gathers + 1) * array * _share(far) / near
    replicas, held = devices // fsdp, array / fsdp
    near, far = _levels(replicas, max(links.node // fsdp, 1))
    inside += 2 * held * _share(near)
    between += 2 * held / near * _share(far)
    return Step(inside, between, inside / links.inside + between / links.between)


def _levels(devices: int, node: int) -> tuple[int, int]:
    """Return how many of a ring are in one node, and how many nodes it has."""
    near = min(devices, node)
    return near, devices // near


def _share(devices: int) -> float:
    return (devices - 1) / devices
