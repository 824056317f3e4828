"""Reading the text of a compiled program: computations, instructions, and where each is from."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,<=]*)\](\{[^}]*\})?")
# Programs that are not compiled yet are printed without the signs and the parameters.
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")


class ArrayShape(NamedTuple):
    """Type and dimensions of an array, and whether it is in the device's main memory."""

    dtype: str
    dimensions: tuple[int, ...]
    in_memory: bool = True

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.dimensions)

    @property
    def bits(self) -> int:
        """Of one number."""
        if self.dtype in _BITS:
            return _BITS[self.dtype]
        # f8e4m3fn and the like begin with their width, as bf16, s32 and u4 do.
        found = re.match(r"[a-z]+([0-9]+)", self.dtype)
        return int(found[1]) if found else 32

    @property
    def bytes(self) -> int:
        """Bytes of main memory, without the padding of its layout."""
        return math.ceil(self.size * self.bits / 8) if self.in_memory else 0


def read_shapes(text: str) -> tuple[ArrayShape, ...]:
    """Read the arrays of a shape, of a tuple all; `S(1)` in a layout is memory on the chip."""
    return tuple(
        ArrayShape(
            dtype,
            tuple(int(n.lstrip("<=")) for n in dimensions.split(",") if n),
            re.search(r"S\([1-9]", layout) is None,
        )
        for dtype, dimensions, layout in _ARRAY.findall(text)
    )


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its computation.
        opcode: as "fusion", "dot", "custom-call".
        shapes: of its results.
        operands: names of instructions of the same computation.
        attributes: everything that follows, as text.
        root: whether it is the computation's result.
        number: of a parameter, else -1.
    """

    name: str
    opcode: str
    shapes: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool
    number: int = -1

    def attribute(self, pattern: str) -> str:
        """Return the first group of a pattern in the attributes, "" if it is not there."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    @property
    def op_name(self) -> str:
        """What JAX calls it, with the transformations around it."""
        return self.attribute(r'op_name="([^"]*)"')

    @property
    def target(self) -> str:
        """Library function of a custom call."""
        return self.attribute(r'custom_call_target="([^"]+)"')

    def declared(self, name: str) -> str:
        """What a kernel says of itself, as `deit_jax.models.fused` lets it; "" of others."""
        return self.attribute(rf"\\22{name}\\22: \\22(\w+)\\22")

    @property
    def called(self) -> str:
        """Computation of a fusion, of a call, or of an asynchronous start."""
        return self.attribute(r"(?:calls|to_apply|called_computations=\{)=?%?([\w.\-]+)")


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: str
    _frames: dict[int, tuple[str, int]] = field(default_factory=dict)

    def functions(self, instruction: Instruction) -> tuple[str, ...]:
        """Return the Python functions that an instruction is from, the innermost first.

        Each as "folder/file.py:function".
        """
        frame, names = int(instruction.attribute(r"stack_frame_id=(\d+)") or 0), []
        while frame in self._frames:
            name, frame = self._frames[frame]
            names.append(name)
        return tuple(names)


def read_module(text: str) -> Module:
    """Read what `jax.stages.Compiled.as_text` returns.

    Raises:
        ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], line[found.end() :], bool(found[1]))
            current[instruction.name] = instruction
        elif line.startswith("}"):
            current = None
        elif found := _COMPUTATION.match(line):
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
    if not entry:
        raise ValueError("The compiler's text has no entry computation.")
    return Module(computations, entry, _frames(text))


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    shape, rest = _split_shape(rest)
    opcode, _, rest = rest.partition("(")
    arguments, attributes = _split_balanced(rest)
    number = int(arguments) if opcode == "parameter" else -1
    found = re.findall(r"%([\w.\-]+)", arguments) or arguments.split(", ")
    operands = tuple(name for name in found if name)
    return Instruction(name, opcode.strip(), read_shapes(shape), operands, attributes, root, number)


def _split_shape(text: str) -> tuple[str, str]:
    """Split "SHAPE opcode(...)"; a tuple's shape has blanks and brackets in it."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    shape, rest = _split_balanced(text[1:])
    return shape, rest.lstrip()


def _split_balanced(text: str) -> tuple[str, str]:
    """Split at the bracket that closes one opened before the text."""
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return text[: found.start()], text[found.end() :]
    return text, ""


def _frames(text: str) -> dict[int, tuple[str, int]]:
    """Function and calling frame of each stack frame; 0 is none."""
    files = _names(_table(text, "FileNames", r'(\d+) "(.*)"'))
    names = _names(_table(text, "FunctionNames", r'(\d+) "(.*)"'))
    place = r"(\d+) \{file_name_id=(\d+) function_name_id=(\d+)"
    places = {
        number: f"{'/'.join(files[file].split('/')[-2:])}:{names[name]}"
        for number, file, name in _table(text, "FileLocations", place)
    }
    # The caller is printed as one more than its number.
    frames = _table(text, "StackFrames", r"(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)")
    return {int(frame): (places.get(place, ""), int(parent) - 1) for frame, place, parent in frames}


def _names(rows: Iterator[tuple[str, ...]]) -> dict[str, str]:
    return {number: name for number, name in rows}


def _table(text: str, title: str, row: str) -> Iterator[tuple[str, ...]]:
    start = text.find(f"\n{title}\n")
    if start < 0:
        return
    for line in text[start + len(title) + 2 :].splitlines():
        found = re.match(row, line)
        if not found:
            return
        yield found.groups()
