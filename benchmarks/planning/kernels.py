"""From a compiled program to its kernels: how often each runs, what it moves and computes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.planning.hlo import ArrayShape, Computation, Instruction, Module
from benchmarks.planning.operations import count_operations

# What is launched for none of these: names for arrays, or the end of what was started before.
_NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
_FREE = _NAMES | {"after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency"}
_HIDDEN = _NAMES | {"broadcast"}
_SLICES = {"slice", "dynamic-slice", "gather"}
COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(?:-start)?$"
)


class Origin(NamedTuple):
    """The Python functions of an instruction, the innermost first, and if it is of a gradient."""

    functions: tuple[str, ...]
    backward: bool


@dataclass(frozen=True)
class Kernel:
    """One instruction that the device runs.

    Attributes:
        name: in the program.
        kind: opcode, of a custom call the library's function, of a kernel of ours its name.
        launches: how often it runs in a call of the program, as far as the compiler knows.
        bytes: of main memory that one launch must read and write.
        operations: of its products, convolutions and attention; those of single numbers are not
            counted.
        dtype: of their factors, "" if there are none.
        opcodes: what it consists of.
        origins: where its instructions are from, each once.
        shapes: of its results.
    """

    name: str
    kind: str
    launches: int
    bytes: int
    operations: int
    dtype: str
    opcodes: frozenset[str]
    origins: frozenset[Origin]
    shapes: tuple[ArrayShape, ...]


@dataclass(frozen=True)
class Walked:
    """All kernels, and how many loops run for a number of rounds that only the data decide."""

    kernels: tuple[Kernel, ...]
    open_loops: int


def read_kernels(module: Module) -> Walked:
    """Follow a program from its entry into loops, calls and branches.

    A loop without a known number of rounds counts as one round, a choice as its largest branch.
    """
    open_loops: list[str] = []
    kernels = tuple(_walk(module, module.entry, 1, open_loops))
    return Walked(kernels, len(open_loops))


def _walk(module: Module, name: str, times: int, open_loops: list[str]) -> Iterator[Kernel]:
    within = module.computations[name]
    for instruction in within.values():
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            continue
        if opcode == "while":
            rounds = instruction.attribute(r'known_trip_count\\?":\s*\{\\?"n\\?":\s*\\?"?(\d+)')
            if not rounds:
                open_loops.append(instruction.name)
            body = instruction.attribute(r"body=%?([\w.\-]+)")
            yield from _walk(module, body, times * int(rounds or 1), open_loops)
        elif opcode == "conditional":
            branches = [list(_walk(module, b, times, open_loops)) for b in _branches(instruction)]
            yield from max(branches, key=_moved, default=[])
        elif opcode in ("call", "async-start") and instruction.called in module.computations:
            yield from _walk(module, instruction.called, times, open_loops)
        else:
            yield _kernel(module, within, instruction, times)


def _moved(kernels: list[Kernel]) -> int:
    return sum(kernel.launches * kernel.bytes for kernel in kernels)


def _branches(instruction: Instruction) -> list[str]:
    listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    if listed:
        return [name.strip().lstrip("%") for name in listed.split(",")]
    return [
        instruction.attribute(rf"{which}_computation=%?([\w.\-]+)") for which in ("true", "false")
    ]


def _kernel(module: Module, within: Computation, instruction: Instruction, times: int) -> Kernel:
    fused = instruction.opcode == "fusion"
    body = module.computations[instruction.called] if fused else {instruction.name: instruction}
    # A fusion within a fusion is a part of the same kernel.
    parts = list(_flat(module, body if fused else within, body))
    counted = [count_operations(part, where) for part, where in parts]
    told = [part for part, _ in parts if part.opcode not in _HIDDEN]
    origins = frozenset(
        Origin(module.functions(part), "transpose(" in part.op_name) for part in told
    )
    moved = _fusion_bytes(within, instruction, body) if fused else _bytes(within, instruction)
    return Kernel(
        instruction.name,
        instruction.declared("kernel") or instruction.target or instruction.opcode,
        times,
        moved,
        sum(operations for operations, _ in counted),
        next((dtype for _, dtype in counted if dtype), ""),
        frozenset(part.opcode for part in told),
        origins,
        _results(instruction),
    )


def _results(instruction: Instruction) -> tuple[ArrayShape, ...]:
    """Shapes of the results alone, where devices exchange something.

    An exchange that is begun may name its operands before its results, and on TPUs its flags.
    """
    if not COLLECTIVE.match(instruction.opcode):
        return instruction.shapes
    arrays = [shape for shape in instruction.shapes if shape.dtype != "u32" or shape.dimensions]
    return tuple((arrays or instruction.shapes)[-len(instruction.operands) :])


def _flat(
    module: Module, where: Computation, body: Computation
) -> Iterator[tuple[Instruction, Computation]]:
    for instruction in body.values():
        if instruction.opcode == "fusion":
            inner = module.computations[instruction.called]
            yield from _flat(module, inner, inner)
        else:
            yield instruction, where


def _bytes(within: Computation, instruction: Instruction) -> int:
    """Bytes of an instruction by itself."""
    read = sum(
        _held(within[name]) for name in dict.fromkeys(instruction.operands) if name in within
    )
    written = _held(instruction)
    if instruction.opcode in _SLICES:
        return 2 * written
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _held(within[instruction.operands[1]])
    if COLLECTIVE.match(instruction.opcode):
        return read + sum(shape.bytes for shape in _results(instruction))
    if instruction.opcode.endswith("-start"):
        # Its result names the operands too, and what it is waited for by.
        if instruction.opcode == "copy-start":
            # The copy comes first; on TPUs it is often onto the chip, or from there.
            return read + instruction.shapes[0].bytes
        results = [shape for shape in instruction.shapes if shape.size > 1]
        if instruction.opcode == "slice-start" and results:
            # Of TPUs: a part of an array is brought onto the chip.
            return results[-1]._replace(in_memory=True).bytes + results[-1].bytes
        return read + (results[-1].bytes if results else 0)
    return read + written


def _held(instruction: Instruction) -> int:
    """Bytes of the results; not of the workspace that a library function asks for."""
    shapes = instruction.shapes
    library = instruction.target.startswith(("__cublas", "__cudnn"))
    if library and len(shapes) > 1 and shapes[-1].dtype in ("s8", "u8"):
        shapes = shapes[:-1]
    return sum(shape.bytes for shape in shapes)


def _fusion_bytes(within: Computation, instruction: Instruction, body: Computation) -> int:
    """Bytes of a fusion, which reads no more of an operand than the slices that it takes."""
    users: dict[str, list[Instruction]] = {}
    for part in body.values():
        for name in part.operands:
            users.setdefault(name, []).append(part)
    read = 0
    seen: set[str] = set()
    for part in body.values():
        if part.opcode != "parameter" or part.number >= len(instruction.operands):
            continue
        operand = instruction.operands[part.number]
        whole = _held(within[operand]) if operand in within else _held(part)
        using = users.get(part.name, [])
        if using and all(_takes_a_part(user, part) for user in using):
            read += min(whole, sum(_part(user, body) for user in using))
        elif operand not in seen:
            read += whole
            seen.add(operand)
    written = _held(instruction)
    root = next((part for part in body.values() if part.root), None)
    if root is not None and root.opcode == "dynamic-update-slice":
        written = min(written, _held(body[root.operands[1]]))
    return read + written


def _takes_a_part(user: Instruction, parameter: Instruction) -> bool:
    """Whether a slice of the parameter is read, or a slice of it replaced where it lies."""
    sliced = user.opcode in _SLICES or user.opcode == "dynamic-update-slice"
    return sliced and user.operands[0] == parameter.name


def _part(user: Instruction, body: Computation) -> int:
    """Bytes that such a user reads: of what it replaces, none."""
    return 0 if user.opcode == "dynamic-update-slice" else sum(s.bytes for s in user.shapes)
