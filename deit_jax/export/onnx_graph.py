"""A traced JAX function as an ONNX graph: one node after the other, in the order of the trace.

What depends on nothing but constants is computed while it is translated. Arrays that are only
repeated along axes stay small where ONNX repeats them by itself. A primitive without a rule in
`onnx_rules` is refused by name, and what comes out is compared with the model before it is kept.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.extend
import numpy as np

from deit_jax.extras import require

OPSET, IR_VERSION = 18, 9
_ELEMENT = re.compile(r"(?:(\d+)\*)?([a-z]\w*)")


class Value(NamedTuple):
    """An array of the trace: a constant, or what a node is called that gives it.

    Attributes:
        what: the constant, or the name.
        shape: it really has, which may be 1 along axes where the trace has more; sides may be
            symbolic.
    """

    what: Any
    shape: tuple[Any, ...]

    @property
    def constant(self) -> bool:
        """Whether it is known."""
        return isinstance(self.what, np.ndarray)


Translation = Callable[["Graph", list[Value], Any], Value | list[Value]]
"""From graph, operands and equation of the trace to what it gives."""


class Graph:
    """An ONNX graph that is being written; rules of primitives call its methods.

    Args:
        rules: by the name of the primitive.
    """

    def __init__(self, rules: Mapping[str, Translation]) -> None:
        self._onnx: Any = require("onnx", "onnx", "Exporting to ONNX")
        self._rules = rules
        self.nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._by_content: dict[tuple[Any, ...], str] = {}
        self._sides: dict[str, str] = {}

    def node(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node of one output; return its name. Inputs are names or constants."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        helper = self._onnx.helper
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def constant(self, array: Any) -> str:
        """Keep a constant; equal small ones once."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes() if array.size < 64 else id(array))
        if key not in self._by_content:
            name = f"constant_{len(self._constants)}"
            self._constants[name] = (array, self._onnx.numpy_helper.from_array(array, name))
            self._by_content[key] = name
        return self._by_content[key]

    def name(self, value: Value) -> str:
        """Return the name of a value, whether it is constant or not."""
        return self.constant(value.what) if value.constant else value.what

    def sides(self, shape: tuple[Any, ...]) -> Any:
        """Return a shape as numbers: a constant, or the name of a node if a side is symbolic."""
        if all(isinstance(side, int) for side in shape):
            return np.asarray(shape, np.int64)
        return self.node("Concat", *map(self._side, shape), axis=0)

    def _side(self, side: Any) -> Any:
        if isinstance(side, int):
            return np.asarray([side], np.int64)
        match = _ELEMENT.fullmatch(str(side))
        if not match or match[2] not in self._sides:
            raise ValueError(f"ONNX export has no rule for a side of {side} elements.")
        name = self._sides[match[2]]
        return self.node("Mul", name, np.asarray([int(match[1])], np.int64)) if match[1] else name

    def scalar_side(self, side: Any) -> str:
        """Return a symbolic side as a scalar."""
        return self.node("Squeeze", self._side(side), np.asarray([0], np.int64))

    def cast(self, name: str, dtype: Any) -> str:
        """Convert to another type."""
        return self.node("Cast", name, to=self._onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def slice(self, name: str, axis: int, start: int, stop: int) -> str:
        """Take a range along one axis."""
        return self.node("Slice", name, *(np.asarray([n], np.int64) for n in (start, stop, axis)))

    def full(self, value: Value, shape: tuple[Any, ...]) -> Value:
        """Repeat a value along the axes where it is 1 and the trace has more."""
        if value.shape == shape:
            return value
        return Value(self.node("Expand", self.name(value), self.sides(shape)), shape)

    def trace(
        self, run: Callable[[Any], Any], argument: jax.ShapeDtypeStruct, name: str
    ) -> tuple[Value, Any]:
        """Translate a function of one array; return what it gives, and its type."""
        for axis, side in enumerate(argument.shape):
            if not isinstance(side, int):
                self._sides[str(side)] = self.slice(self.node("Shape", name), 0, axis, axis + 1)
        closed = jax.make_jaxpr(run)(argument)
        (result,) = self._translate(closed, [Value(name, tuple(argument.shape))])
        (out,) = closed.out_avals
        return self.full(result, tuple(out.shape)), out

    def _translate(self, closed: Any, operands: list[Value]) -> list[Value]:
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.constvars, map(_constant, closed.consts), strict=True))
        known |= dict(zip(jaxpr.invars, operands, strict=True))

        def read(atom: Any) -> Value:
            literal = isinstance(atom, jax.extend.core.Literal)
            return _constant(np.asarray(atom.val, atom.aval.dtype)) if literal else known[atom]

        for equation in jaxpr.eqns:
            values = self._equation(equation, [read(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, values, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[Value]) -> list[Value]:
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        if inner is not None:
            return self._translate(inner, operands)
        name = equation.primitive.name
        shapes = [tuple(out.aval.shape) for out in equation.outvars]
        fixed = all(isinstance(side, int) for shape in shapes for side in shape)
        if fixed and name != "dim_as_value" and all(operand.constant for operand in operands):
            found = equation.primitive.bind(*(v.what for v in operands), **equation.params)
            found = found if equation.primitive.multiple_results else [found]
            return [_constant(one) for one in found]
        if name not in self._rules:
            raise ValueError(
                f"ONNX export has no rule for {name}, which this model needs; choose the format "
                "stablehlo."
            )
        found = self._rules[name](self, operands, equation)
        return found if isinstance(found, list) else [found]

    def rename(self, value: Value, name: str) -> None:
        """Give the last of the nodes a name of its own."""
        self.nodes.append(
            self._onnx.helper.make_node("Identity", [self.name(value)], [name], name=name)
        )

    def model(self, inputs: Any, outputs: Any, metadata: Mapping[str, str]) -> bytes:
        """Return the file, without nodes and constants that nothing reads.

        Raises:
            ValueError: it would be larger than such a file can be.
        """
        helper, needed, kept = self._onnx.helper, {outputs.name}, []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        constants = [tensor for name, (_, tensor) in self._constants.items() if name in needed]
        size = sum(tensor.ByteSize() for tensor in constants)
        if size >= 2**31 - 2**20:
            raise ValueError(
                f"The weights are {size:,} bytes, but a file of ONNX holds less than 2 GiB; choose "
                "the format stablehlo."
            )
        graph = helper.make_graph(kept[::-1], "model", [inputs], [outputs], constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "deit_jax"
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=False)
        return bytes(model.SerializeToString())

    def tensor_info(self, name: str, dtype: Any, shape: tuple[int | str, ...]) -> Any:
        """Describe an input or output."""
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, list(shape))


def _constant(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array, array.shape)
