"""What each primitive of JAX is in ONNX: those that models and preprocessing are made of."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deit_jax.export.onnx_graph import Graph, Translation, Value

TRANSLATIONS: dict[str, Translation] = {}
_ELEMENTWISE = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "exp": "Exp", "log": "Log", "erf": "Erf", "sin": "Sin", "sqrt": "Sqrt", "abs": "Abs",
    "floor": "Floor", "neg": "Neg", "tanh": "Tanh", "logistic": "Sigmoid",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
    "and": "And",
}  # fmt: skip
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}


def _rule(*names: str) -> Callable[[Translation], Translation]:
    def register(rule: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(names, rule))
        return rule

    return register


def _out(equation: Any) -> tuple[Any, ...]:
    return tuple(equation.outvars[0].aval.shape)


def _numbers(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def _joint(operands: list[Value]) -> tuple[Any, ...]:
    """Return the shape that ONNX gives operands of as many axes; 1 repeats."""
    rank = max(len(value.shape) for value in operands)
    shapes = [(1,) * (rank - len(value.shape)) + value.shape for value in operands]
    return tuple(
        next((side for side in sides if not (isinstance(side, int) and side == 1)), 1)
        for sides in zip(*shapes, strict=True)
    )


@_rule(*_ELEMENTWISE)
def _elementwise(graph: Graph, operands: list[Value], equation: Any) -> Value:
    operator = _ELEMENTWISE[equation.primitive.name]
    return Value(graph.node(operator, *map(graph.name, operands)), _joint(operands))


@_rule("square")
def _square(graph: Graph, operands: list[Value], equation: Any) -> Value:
    (name,) = map(graph.name, operands)
    return Value(graph.node("Mul", name, name), operands[0].shape)


@_rule("integer_pow")
def _power(graph: Graph, operands: list[Value], equation: Any) -> Value:
    exponent = np.asarray(equation.params["y"], np.float32)
    return Value(graph.node("Pow", graph.name(operands[0]), exponent), operands[0].shape)


@_rule("rsqrt")
def _rsqrt(graph: Graph, operands: list[Value], equation: Any) -> Value:
    root = graph.node("Sqrt", graph.name(operands[0]))
    return Value(graph.node("Reciprocal", root), operands[0].shape)


@_rule("select_n")
def _select(graph: Graph, operands: list[Value], equation: Any) -> Value:
    which, other, chosen = operands
    names = map(graph.name, (which, chosen, other))
    return Value(graph.node("Where", *names), _joint(operands))


@_rule("convert_element_type")
def _convert(graph: Graph, operands: list[Value], equation: Any) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    return Value(graph.cast(graph.name(operands[0]), dtype), operands[0].shape)


@_rule("optimization_barrier", "copy", "stop_gradient")
def _same(graph: Graph, operands: list[Value], equation: Any) -> Value:
    return operands[0]


@_rule(*_REDUCTIONS)
def _reduce(graph: Graph, operands: list[Value], equation: Any) -> Value:
    whole = graph.full(operands[0], tuple(equation.invars[0].aval.shape))
    operator = _REDUCTIONS[equation.primitive.name]
    axes = _numbers(*equation.params["axes"])
    return Value(graph.node(operator, graph.name(whole), axes, keepdims=0), _out(equation))


@_rule("broadcast_in_dim")
def _broadcast(graph: Graph, operands: list[Value], equation: Any) -> Value:
    """Give it as many axes; ONNX repeats it where that is needed."""
    (value, *_), shape = operands, _out(equation)
    small: list[Any] = [1] * len(shape)
    for axis, target in enumerate(equation.params["broadcast_dimensions"]):
        small[target] = value.shape[axis]
    return _reshaped(graph, value, tuple(small))


@_rule("reshape", "squeeze", "expand_dims")
def _reshape(graph: Graph, operands: list[Value], equation: Any) -> Value:
    whole = graph.full(operands[0], tuple(equation.invars[0].aval.shape))
    return _reshaped(graph, whole, _out(equation))


def _reshaped(graph: Graph, value: Value, shape: tuple[Any, ...]) -> Value:
    if value.shape == shape:
        return value
    if value.constant:
        return Value(value.what.reshape(shape), shape)
    symbolic = [side for side in shape if not isinstance(side, int)]
    # One side that is not known follows from all others.
    sides = (
        graph.sides(shape)
        if len(symbolic) > 1
        else _numbers(*(side if isinstance(side, int) else -1 for side in shape))
    )
    return Value(graph.node("Reshape", graph.name(value), sides), shape)


@_rule("transpose")
def _transpose(graph: Graph, operands: list[Value], equation: Any) -> Value:
    order = list(equation.params["permutation"])
    shape = tuple(operands[0].shape[axis] for axis in order)
    return Value(graph.node("Transpose", graph.name(operands[0]), perm=order), shape)


@_rule("concatenate")
def _concatenate(graph: Graph, operands: list[Value], equation: Any) -> Value:
    whole = [
        graph.full(value, tuple(atom.aval.shape))
        for value, atom in zip(operands, equation.invars, strict=True)
    ]
    axis = equation.params["dimension"]
    return Value(graph.node("Concat", *map(graph.name, whole), axis=axis), _out(equation))


@_rule("split")
def _split(graph: Graph, operands: list[Value], equation: Any) -> list[Value]:
    whole = graph.full(operands[0], tuple(equation.invars[0].aval.shape))
    axis, start, parts = equation.params["axis"], 0, []
    for size, out in zip(equation.params["sizes"], equation.outvars, strict=True):
        part = graph.slice(graph.name(whole), axis, start, start + size)
        parts.append(Value(part, tuple(out.aval.shape)))
        start += size
    return parts


@_rule("pad")
def _pad(graph: Graph, operands: list[Value], equation: Any) -> Value:
    padding = equation.params["padding_config"]
    if any(inner or low < 0 or high < 0 for low, high, inner in padding):
        raise ValueError("ONNX export has no rule for padding between elements.")
    whole = graph.full(operands[0], tuple(equation.invars[0].aval.shape))
    edges = _numbers(*(low for low, _, _ in padding), *(high for _, high, _ in padding))
    names = graph.name(whole), edges, graph.name(operands[1])
    return Value(graph.node("Pad", *names), _out(equation))


@_rule("iota")
def _iota(graph: Graph, operands: list[Value], equation: Any) -> Value:
    (side,), dtype = _out(equation), np.dtype(equation.params["dtype"])
    zero, one = np.asarray(0, np.int64), np.asarray(1, np.int64)
    return Value(
        graph.cast(graph.node("Range", zero, graph.scalar_side(side), one), dtype), (side,)
    )


@_rule("dim_as_value")
def _dimension(graph: Graph, operands: list[Value], equation: Any) -> Value:
    side = graph.scalar_side(equation.params["dim"])
    return Value(graph.cast(side, np.dtype(np.int32)), ())


@_rule("gather")
def _gather(graph: Graph, operands: list[Value], equation: Any) -> Value:
    """Take constant places along some axes, or a range of one: as plain indexing is traced."""
    numbers, places = equation.params["dimension_numbers"], operands[1].what
    axes, collapsed = numbers.start_index_map, numbers.collapsed_slice_dims
    kept = set(range(len(_out(equation)))) - set(numbers.offset_dims)
    name = graph.name(graph.full(operands[0], tuple(equation.invars[0].aval.shape)))
    if operands[1].constant and places.shape == (1,) and len(axes) == 1:
        start = int(places[0])
        if collapsed == axes:
            indices = np.asarray(start, np.int64)
            return Value(graph.node("Gather", name, indices, axis=axes[0]), _out(equation))
        stop = start + equation.params["slice_sizes"][axes[0]]
        return Value(graph.slice(name, axes[0], start, stop), _out(equation))
    if operands[1].constant and collapsed == axes and places.ndim == len(axes) + 1:
        # A grid, if all places along an axis are those of its first line.
        lines = np.eye(len(axes), dtype=int)
        along = [
            places[tuple(slice(None) if own else 0 for own in line)][:, axis]
            for axis, line in enumerate(lines)
        ]
        grid = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1)
        if kept == set(axes) and np.array_equal(grid, places):
            for axis, at in zip(axes, along, strict=True):
                name = graph.node("Gather", name, at.astype(np.int64), axis=axis)
            return Value(name, _out(equation))
    raise ValueError("ONNX export has no rule for this way of indexing.")


@_rule("dot_general")
def _product(graph: Graph, operands: list[Value], equation: Any) -> Value:
    (over, batch) = equation.params["dimension_numbers"]
    left, right = (
        graph.full(value, tuple(atom.aval.shape))
        for value, atom in zip(operands, equation.invars, strict=True)
    )
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    terms = [[next(letters) for _ in value.shape] for value in (left, right)]
    for one, other in (*zip(*batch, strict=True), *zip(*over, strict=True)):
        terms[1][other] = terms[0][one]
    shared = [terms[0][axis] for axis in batch[0]]
    summed = {terms[0][axis] for axis in over[0]}
    rest = [c for term in terms for c in term if c not in summed and c not in shared]
    matmul = _matmul(graph, left, right, equation)
    if matmul:
        return Value(matmul, _out(equation))
    text = f"{','.join(''.join(term) for term in terms)}->{''.join([*shared, *rest])}"
    names = map(graph.name, (left, right))
    return Value(graph.node("Einsum", *names, equation=text), _out(equation))


def _matmul(graph: Graph, left: Value, right: Value, equation: Any) -> str:
    """Return a product of matrices, if it is one or batches of them; else ""."""
    (over, batch) = equation.params["dimension_numbers"]
    rank = len(left.shape)
    leading = tuple(range(rank - 2))
    if len(right.shape) != rank or not tuple(batch[0]) == leading == tuple(batch[1]):
        return ""
    names = []
    for value, axis, wanted in ((left, over[0], rank - 1), (right, over[1], rank - 2)):
        if len(axis) != 1 or axis[0] < rank - 2:
            return ""
        order = [*leading, rank - 1, rank - 2]
        if axis[0] == wanted:
            names.append(graph.name(value))
        elif value.constant:
            names.append(graph.constant(value.what.transpose(order)))
        else:
            names.append(graph.node("Transpose", graph.name(value), perm=order))
    return graph.node("MatMul", *names)


@_rule("conv_general_dilated")
def _convolution(graph: Graph, operands: list[Value], equation: Any) -> Value:
    params, (images, kernel) = equation.params, operands
    numbers = params["dimension_numbers"]
    plain = set(params["lhs_dilation"]) | set(params["rhs_dilation"]) == {1}
    if not plain or params["batch_group_count"] != 1:
        raise ValueError("ONNX export has no rule for a dilated convolution.")
    # ONNX has channels first; what is made of it is turned back.
    first = graph.node("Transpose", graph.name(images), perm=list(numbers.lhs_spec))
    order = list(numbers.rhs_spec)
    weights: Any = (
        np.ascontiguousarray(kernel.what.transpose(order))
        if kernel.constant
        else graph.node("Transpose", graph.name(kernel), perm=order)
    )
    pads = [low for low, _ in params["padding"]] + [high for _, high in params["padding"]]
    result = graph.node(
        "Conv", first, weights, strides=list(params["window_strides"]), pads=pads,
        group=params["feature_group_count"],
    )  # fmt: skip
    back = [numbers.out_spec.index(axis) for axis in range(len(order))]
    return Value(graph.node("Transpose", result, perm=back), _out(equation))


@_rule("reduce_window_max")
def _max_pool(graph: Graph, operands: list[Value], equation: Any) -> Value:
    params = equation.params
    window, strides, padding = (
        params[key] for key in ("window_dimensions", "window_strides", "padding")
    )
    if (window[0], window[3]) != (1, 1) or set(params["window_dilation"]) != {1}:
        raise ValueError("ONNX export has no rule for this pooling.")
    first = graph.node("Transpose", graph.name(operands[0]), perm=[0, 3, 1, 2])
    pads = [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]]
    result = graph.node(
        "MaxPool", first, kernel_shape=list(window[1:3]), strides=list(strides[1:3]), pads=pads
    )
    return Value(graph.node("Transpose", result, perm=[0, 2, 3, 1]), _out(equation))
