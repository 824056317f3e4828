"""A plan: what all kernels of a compiled program add up to, by class, at the roofline."""

from dataclasses import asdict, dataclass, field
from typing import Any

from jax.stages import Compiled

from benchmarks.jax_side import planned_bytes
from benchmarks.planning.classes import CLASSES, REST, classify, is_of_the_teacher
from benchmarks.planning.collectives import Collective, list_collectives
from benchmarks.planning.devices import Device
from benchmarks.planning.hlo import read_module
from benchmarks.planning.kernels import Kernel, read_kernels

_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "bfloat16"}


@dataclass
class Share:
    """What some kernels take of a call of the program, on one device."""

    launches: int = 0
    bytes: int = 0
    operations: int = 0
    seconds: float = 0.0

    def add(self, kernel: Kernel, seconds: float) -> None:
        """Count a kernel, `seconds` a launch."""
        self.launches += kernel.launches
        self.bytes += kernel.launches * kernel.bytes
        self.operations += kernel.launches * kernel.operations
        self.seconds += kernel.launches * seconds


@dataclass(frozen=True)
class Plan:
    """What the compiler plans for a program on each of some devices.

    Attributes:
        program: what was compiled.
        devices: for which devices, as "h200:8".
        images: of one call, on all devices together.
        classes: by name, in the order of `CLASSES`.
        teacher: the part of them that a teacher's forward pass takes.
        memory: bytes of one device: arguments and results, and what is needed meanwhile.
        collectives: what crosses between the devices.
        largest: the kernels that take longest: class, what it is, times, seconds in all.
        notes: what the figures depend on.
        compile_seconds: here.
    """

    program: str
    devices: str
    images: int
    classes: dict[str, Share]
    teacher: Share
    memory: dict[str, int]
    collectives: list[Collective] = field(default_factory=list)
    largest: list[tuple[str, str, int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compile_seconds: float = 0.0

    @property
    def total(self) -> Share:
        """Return the sum of all classes."""
        shares = [asdict(share) for share in self.classes.values()]
        return Share(**{key: sum(share[key] for share in shares) for key in asdict(Share())})

    def to_json(self) -> dict[str, Any]:
        """Return everything, for `from_json`."""
        return asdict(self) | {"largest": [list(row) for row in self.largest]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Plan":
        """Undo `to_json`."""
        shares = {name: Share(**share) for name, share in found["classes"].items()}
        crossing = [Collective(**collective) for collective in found["collectives"]]
        read: dict[str, Any] = {"classes": shares, "collectives": crossing}
        read["teacher"] = Share(**found["teacher"])
        read["largest"] = [tuple(row) for row in found["largest"]]
        return cls(**found | read)


def seconds_of(kernel: Kernel, device: Device) -> float:
    """Return the least time of one launch: moving its bytes or doing its operations."""
    rate = device.flops_per_second[_TYPES.get(kernel.dtype, "float32")]
    return max(kernel.bytes / device.bytes_per_second, kernel.operations / rate)


def make_plan(
    compiled: Compiled, device: Device, *, program: str, devices: str, images: int
) -> Plan:
    """Add up a compiled program.

    Args:
        compiled: for `devices`.
        device: one of them.
        program: what it is.
        devices: as it is called.
        images: of one call, on all devices together.
    """
    module = read_module(compiled.as_text() or "")
    walked = read_kernels(module)
    shares: dict[str, Share] = {}
    teacher = Share()
    single: dict[tuple[str, str], tuple[int, float]] = {}
    for kernel in walked.kernels:
        seconds = seconds_of(kernel, device)
        name = classify(kernel, seconds, device.launch_seconds)
        shares.setdefault(name, Share()).add(kernel, seconds)
        if is_of_the_teacher(kernel):
            teacher.add(kernel, seconds)
        key = (name, describe(kernel))
        times, sum_ = single.get(key, (0, 0.0))
        single[key] = times + kernel.launches, sum_ + kernel.launches * seconds
    notes = []
    if walked.open_loops:
        notes.append(
            f"{walked.open_loops} loops whose rounds depend on the data are counted as one round"
        )
    order = sorted(single.items(), key=lambda item: -item[1][1])
    return Plan(
        program=program,
        devices=devices,
        images=images,
        classes={name: shares[name] for name in CLASSES if name in shares},
        teacher=teacher,
        memory={"planned": planned_bytes(compiled), "temporary": _temporary(compiled)},
        collectives=list_collectives(walked.kernels, images),
        largest=[(name, what, times, sum_) for (name, what), (times, sum_) in order[:100]],
        notes=notes,
    )


def describe(kernel: Kernel) -> str:
    """Say in a line what a kernel is: what it gives, of which instructions, from where."""
    results = ", ".join(
        f"{shape.dtype}[{','.join(map(str, shape.dimensions))}]" for shape in kernel.shapes[:3]
    )
    where = sorted({origin.functions[0] for origin in kernel.origins if origin.functions})
    kind = kernel.kind if kernel.kind != "fusion" else " ".join(sorted(kernel.opcodes))
    return f"{results} {kind[:60]} ({', '.join(where)[:80] or REST})"


def _temporary(compiled: Compiled) -> int:
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes if memory else 0
