"""What crosses between devices in a compiled program: sums, or whole parts of a batch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.planning.kernels import COLLECTIVE, Kernel


@dataclass(frozen=True)
class Collective:
    """Equal exchanges between the devices.

    Attributes:
        kind: "all-reduce", "all-gather", ...
        launches: in a call of the program.
        arrays: of one exchange.
        bytes: of one exchange's result on one device.
        batch_sized: whether an array has an axis as long as the whole batch: then images, or
            something of each, are gathered, where sums would do.
        shape: of the largest array.
    """

    kind: str
    launches: int
    arrays: int
    bytes: int
    batch_sized: bool
    shape: str


def list_collectives(kernels: Iterable[Kernel], batch: int) -> list[Collective]:
    """Return all exchanges, the largest first.

    Args:
        kernels: of a program for several devices.
        batch: length of the axis that is split over them.
    """
    found: Counter[tuple[str, int, int, bool, str]] = Counter()
    for kernel in kernels:
        kind = COLLECTIVE.match(kernel.kind)
        if not kind:
            continue
        largest = max(kernel.shapes, key=lambda shape: shape.size)
        text = f"{largest.dtype}[{','.join(map(str, largest.dimensions))}]"
        size = sum(-(-shape.size * shape.bits // 8) for shape in kernel.shapes)
        # What is summed is of one device's shape, however long: only what is moved is of images.
        moved = kind[1] != "all-reduce"
        gathered = moved and any(batch in shape.dimensions for shape in kernel.shapes)
        found[kind[1], len(kernel.shapes), size, gathered, text] += kernel.launches
    return sorted(
        (
            Collective(kind, launches, arrays, size, gathered, text)
            for (kind, arrays, size, gathered, text), launches in found.items()
        ),
        key=lambda collective: (-collective.bytes, collective.kind),
    )
