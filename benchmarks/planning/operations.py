"""Operations of products, convolutions and attention, two for each multiplication and addition."""

import math
import re

from benchmarks.planning.hlo import ArrayShape, Computation, Instruction

_CUDNN_CONVOLUTION = "__cudnn$conv"
_CUDNN_ATTENTION = "__cudnn$fmha"
TRITON = "__gpu$xla.gpu.triton"


def count_operations(instruction: Instruction, within: Computation) -> tuple[int, str]:
    """Return the operations of one instruction and the type of its factors; (0, "") of others."""
    shapes = [within[name].shapes[0] for name in instruction.operands if name in within]
    target = instruction.target
    if instruction.opcode == "dot":
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([0-9,]*)\}")
        return _product(instruction.shapes[0], shapes[0], _numbers(contracted)), shapes[0].dtype
    if target.startswith("__cublas"):
        quoted = instruction.attribute(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]')
        contracted = quoted.replace('"', "").replace(" ", "")
        return _product(instruction.shapes[0], shapes[0], _numbers(contracted)), shapes[0].dtype
    if instruction.opcode == "convolution":
        return _convolution(instruction, shapes[0], shapes[1], instruction.shapes[0])
    if target.startswith(_CUDNN_CONVOLUTION):
        first, second, result = shapes[0], shapes[1], instruction.shapes[0]
        # The window and the labels are always those of the forward pass.
        if "BackwardInput" in target:
            return _convolution(instruction, result, second, first)
        if "BackwardFilter" in target:
            return _convolution(instruction, first, result, second)
        return _convolution(instruction, first, second, result)
    if target.startswith(_CUDNN_ATTENTION):
        # [batch, tokens, heads, features]: scores and their sum of values; the backward pass
        # computes the scores again, and has two products for each of both.
        products = 5 if "Backward" in target else 2
        return 2 * products * shapes[0].size * shapes[1].dimensions[1], shapes[0].dtype
    if target == TRITON:
        declared = int(instruction.declared("operations") or 0)
        return declared, shapes[0].dtype if declared else ""
    return 0, ""


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _product(result: ArrayShape, left: ArrayShape, contracted: list[int]) -> int:
    return 2 * result.size * math.prod(left.dimensions[axis] for axis in contracted)


def _convolution(
    instruction: Instruction, images: ArrayShape, kernel: ArrayShape, result: ArrayShape
) -> tuple[int, str]:
    """Count what is multiplied, without the padding and the zeros between dilated images.

    TPUs write every product as a convolution, and a batch of them as one that is dilated.
    """
    labels = instruction.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    if not labels:
        return 0, ""
    image_labels, kernel_labels, result_labels = re.split(r"_|->", labels)
    window = instruction.attribute(r"window=\{([^}]*)\}")
    pairs = 1
    for axis in sorted(set(image_labels) - {"b", "f"}):
        pairs *= _pairs(
            images.dimensions[image_labels.index(axis)],
            kernel.dimensions[kernel_labels.index(axis)],
            result.dimensions[result_labels.index(axis)],
            {key: _window(window, key, int(axis)) for key in _WINDOW},
        )
    batch = result.dimensions[result_labels.index("b")]
    channels = result.dimensions[result_labels.index("f")]
    per_group = kernel.dimensions[kernel_labels.index("i")]
    return 2 * batch * channels * per_group * pairs, images.dtype


_WINDOW = {"stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}


def _window(window: str, key: str, axis: int) -> int:
    found = re.search(rf"\b{key}=([\d_x\-]+)", window)
    if not found:
        return _WINDOW[key]
    # Padding before and after: "1_1x1_1".
    return int(found[1].split("x")[axis].split("_")[0])


def _pairs(image: int, kernel: int, result: int, window: dict[str, int]) -> int:
    """Positions of result and kernel along one axis that meet a pixel."""
    dilation, end = window["lhs_dilate"], (image - 1) * window["lhs_dilate"]
    total = 0
    for tap in range(kernel):
        first = tap * window["rhs_dilate"] - window["pad"]
        positions = range(first, first + result * window["stride"], window["stride"])
        total += sum(1 for at in positions if 0 <= at <= end and at % dilation == 0)
    return total
