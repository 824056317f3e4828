"""Sorting kernels by what they are for: from their instructions, and whose functions these are."""

import re

from benchmarks.planning.kernels import COLLECTIVE, Kernel, Origin

PRODUCTS, CONVOLUTIONS = "products", "convolutions"
ATTENTION = "attention"
COPIES, CASTS, SUMS = "copies, pads, splits", "casts", "column sums"
COLLECTIVES, TINY, REST = "collectives", "tiny", "rest"

_MOVES = {"copy", "copy-start", "pad", "slice", "slice-start", "dynamic-slice"}
_MOVES |= {"dynamic-update-slice", "concatenate", "transpose", "reverse", "reshape", "gather"}
_SUMS = {"reduce", "add", "select", "compare"}
_OURS = {
    "add_norm_forward": "LayerNorm forward",
    "add_norm_backward": "LayerNorm backward",
    "product_gelu": PRODUCTS,
    "gradient_product_gelu": PRODUCTS,
}
# What is looked for in "folder/file.py:function" of one instruction, from the innermost function
# outwards; a fusion of several is what stands first here. None: in either pass.
_BY_FUNCTION: tuple[tuple[str, str, bool | None], ...] = (
    ("LayerNorm backward", r"layer_norm|LayerNorm", True),
    ("LayerNorm forward", r"layer_norm|LayerNorm", None),
    ("GELU backward", r":gelu|_gelu|:Mlp\.|fused/encoder\.py:encode", True),
    ("GELU forward", r":gelu|_gelu", None),
    (ATTENTION, r"attention\.py:_?attend|:_scores|:split_heads|:merge_heads", None),
    ("residual, stochastic depth", r":stochastic_depth|:Block\.|:Layer.?Scale", None),
    (
        "norm, activation of convnets",
        r"/(batch_norm|convnet|convnet_layers|regnet|resnet)\.py",
        None,
    ),
    ("norm, activation of convnets", r"/efficientnet\.py", None),
    ("augmentation, mixing", r"augment/", None),
    ("losses", r"losses\.py", None),
    (
        "optimiser, norm, EMA",
        r"optax/|/_?transform|_src/|tree_utils/|/optimizer\.py|/ema\.py",
        None,
    ),
    ("optimiser, norm, EMA", r":_advance|\.step\.<locals>\.<lambda>", None),
    ("patches and tokens", r":PatchEmbed|\._embed|:first_tokens", None),
    ("bias and its gradient", r"/products\.py|:Linear\.|:Convolution\.|:Attention\.", None),
)
CLASSES = tuple(
    dict.fromkeys(
        (
            *(PRODUCTS, CONVOLUTIONS),
            *(name for name, _, _ in _BY_FUNCTION),
            *(SUMS, COPIES, CASTS, COLLECTIVES, REST, TINY),
        )
    )
)
"""All classes, in the order of the tables."""


def classify(kernel: Kernel, seconds: float, launch_seconds: float) -> str:
    """Return the class of a kernel, one of `CLASSES`.

    Args:
        kernel: as read.
        seconds: of one launch at the roofline.
        launch_seconds: that a launch costs; what takes less by itself is tiny.
    """
    if COLLECTIVE.match(kernel.kind):
        return COLLECTIVES
    if kernel.kind.startswith("__cudnn$fmha"):
        return ATTENTION
    if kernel.kind in _OURS:
        return _OURS[kernel.kind]
    origins = {_by_origin(origin) for origin in kernel.origins}
    if kernel.operations:
        return _arithmetic(kernel, origins)
    if seconds < launch_seconds:
        return TINY
    opcodes = kernel.opcodes - {"convert"}
    if not opcodes:
        return CASTS
    if opcodes <= _MOVES or (ATTENTION in origins and opcodes <= _MOVES | {"add"}):
        return COPIES
    if "reduce" in opcodes and opcodes <= _SUMS and _writes_little(kernel):
        return SUMS
    return next((name for name in CLASSES if name in origins), REST)


def is_of_the_teacher(kernel: Kernel) -> bool:
    """Whether anything of it is from the forward pass that a train step asks a teacher for."""
    return any(
        any(name.endswith("training/example.py:ask") for name in functions)
        for functions, _ in kernel.origins
    )


def _by_origin(origin: Origin) -> str:
    for function in origin.functions:
        for name, pattern, backward in _BY_FUNCTION:
            if backward in (None, origin.backward) and re.search(pattern, function):
                return name
    return REST


def _arithmetic(kernel: Kernel, origins: set[str]) -> str:
    """Tell products, convolutions and products of attention apart.

    TPUs write all products as convolutions.
    """
    if ATTENTION in origins:
        return ATTENTION
    convolved = "convolution" in kernel.opcodes or kernel.kind.startswith("__cudnn$conv")
    products = any(
        re.search(r"/products\.py|:pointwise|:Linear\.|:PatchEmbed", function)
        for functions, _ in kernel.origins
        for function in functions
    )
    return CONVOLUTIONS if convolved and not products else PRODUCTS


def _writes_little(kernel: Kernel) -> bool:
    return 16 * sum(shape.bytes for shape in kernel.shapes) <= kernel.bytes
