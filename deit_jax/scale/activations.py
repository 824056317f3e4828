"""What the backward pass needs of the forward pass, by the traced program; nothing is compiled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal, Var
from jax.sharding import AbstractMesh, AxisType, Mesh
from jaxtyping import Array

from deit_jax.sharding import DATA_AXIS, FSDP_AXIS, batch_split_over
from deit_jax.trees import Tree

# So many that what does not grow with them, such as a reshaped kernel, does not count.
_TRACED = 256

# Programs within the program, and where they are.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
# What a compiler computes again where it is used, rather than keep the result.
_ELEMENTWISE = frozenset(
    {
        "abs", "add", "and", "broadcast_in_dim", "clamp", "convert_element_type", "copy", "div",
        "eq", "exp", "expand_dims", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max",
        "min", "mul", "ne", "neg", "not", "or", "pow", "rsqrt", "select_n", "sign", "sqrt",
        "square", "squeeze", "sub", "tanh",
    }
)  # fmt: skip
# What reads its operands without having them written first.
_REDUCTIONS = frozenset({"reduce_max", "reduce_min", "reduce_sum"})

Remat = str
Forward = Callable[[Tree, Tree, Array, Array], Any]
"""(parameters, statistics, normalised images, a key for each) -> logits."""


def kept_by_image(
    forwards: Mapping[Remat, Forward],
    shapes: tuple[Tree, Tree],
    image_size: tuple[int, int],
    mesh: Mesh,
    *,
    recomputed: bool,
) -> Callable[[Remat], int]:
    """Return what counts the bytes of one image that the backward pass needs; traces when asked.

    Args:
        forwards: the student's forward pass, by `Settings.remat`.
        shapes: of its parameters and statistics.
        image_size: (height, width) in pixels.
        mesh: of the devices, whose kind decides how some layers are computed.
        recomputed: what follows element by element from other arrays that are kept is computed
            again. So compilers have it with a convnet's normalisations and activations, which JAX
            would keep in float32; a transformer's layers say themselves what they keep.
    """
    single = AbstractMesh(
        (1, 1),
        (DATA_AXIS, FSDP_AXIS),
        axis_types=(AxisType.Auto,) * 2,
        abstract_device=mesh.abstract_mesh.abstract_device,
    )
    # Without the mesh that they are to be on.
    bare = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
    images = jax.ShapeDtypeStruct((_TRACED, *image_size, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _TRACED))

    @cache
    def count(remat: Remat) -> int:
        def backward(params: Tree, batch_stats: Tree, images: Array, keys: Array) -> Any:
            return jax.vjp(lambda p: forwards[remat](p, batch_stats, images, keys), params)[1]

        with batch_split_over(single):
            program = jax.make_jaxpr(backward)(*bare, images, keys).jaxpr
        sizes = _kept(program, recomputed)
        # Beside them two gradients on their way: of the widest layer, and of what it was made from.
        return (sum(sizes) + 2 * max(sizes, default=0)) // _TRACED

    return count


@dataclass(eq=False)
class _Value:
    """An array of the program.

    Attributes:
        size: in bytes; 0 of what is there anyway.
        made_of: the arrays that it follows from element by element, if it does.
        written: to memory, since it is given, an operation wants it there or does not end in it
            element by element.
    """

    size: int
    made_of: tuple["_Value", ...] = ()
    written: bool = True


# Parameters and images, constants too.
_GIVEN = _Value(0)


def _kept(program: Jaxpr, recomputed: bool) -> list[int]:
    """Return the bytes of each array that is kept so that a program's results are there."""
    values: list[_Value] = [_GIVEN]
    given = dict.fromkeys((*program.invars, *program.constvars), _GIVEN)
    # Once each, in order.
    results = dict.fromkeys(_follow(program, given, values))
    if not recomputed:
        return [value.size for value in results if value.size]
    roots: dict[_Value, frozenset[_Value]] = {}
    for value in values:
        found = (roots[part] for part in value.made_of)
        roots[value] = frozenset({value}) if value.written else frozenset().union(*found)
    kept: dict[_Value, None] = {}
    # What is written first, then the largest, whose roots may serve smaller ones.
    for value in sorted(results, key=lambda value: (not value.written, -value.size)):
        more = [root for root in roots[value] if root not in kept]
        cheaper = sum(root.size for root in more) <= value.size
        kept.update(dict.fromkeys(more if cheaper else [value]))
    return [value.size for value in kept if value.size]


def _follow(program: Jaxpr, known: dict[Var, _Value], values: list[_Value]) -> list[_Value]:
    """Return a program's results; `values` is given every array on the way, in order."""

    def value_of(atom: Var | Literal) -> _Value:
        return _GIVEN if isinstance(atom, Literal) else known[atom]

    for equation in program.eqns:
        name, operands = equation.primitive.name, [value_of(atom) for atom in equation.invars]
        if name in _CALLS:
            inner = equation.params[_CALLS[name]].jaxpr
            own = dict.fromkeys(inner.constvars, _GIVEN)
            own |= dict(zip(inner.invars, operands, strict=True))
            made = _follow(inner, own, values)
        elif name == "reshape":
            made = operands[:1]
        elif name in _ELEMENTWISE:
            made = [_Value(_bytes(equation.outvars[0]), tuple(operands), written=False)]
            values += made
        else:
            if name not in _REDUCTIONS:
                for operand in operands:
                    operand.written = True
            # A barrier's results are its operands.
            same = name == "optimization_barrier"
            made = operands if same else [_Value(_bytes(var)) for var in equation.outvars]
            values += made
        known.update(zip(equation.outvars, made, strict=True))
    return [value_of(atom) for atom in program.outvars]


def _bytes(var: Var) -> int:
    shape: Any = var.aval
    return shape.size * shape.dtype.itemsize
