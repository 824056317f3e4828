"""Every array that enters or leaves a function of the package has the shape its annotation says.

jaxtyping's import hook has beartype check the calls of all tests. Only shapes and element types are
checked: NumPy's arrays pass for JAX's, whose functions take them, and all other annotations are
mypy's business (stand-ins of tests are no subclasses of what they replace).
"""

import collections.abc
import contextlib
import functools
import operator
import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import jaxtyping
from beartype import beartype

# Rooms and modules whose functions take arrays. Not `data.images.resize_kernel`, which numba
# compiles from its bytecode; nor what reads files of weights, whose tests watch that nothing is
# compiled meanwhile, as beartype does.
CHECKED = [
    f"deit_jax.{name}"
    for name in (
        "augment",
        "data.combined",
        "data.draws",
        "data.formats",
        "data.images.decode",
        "data.images.oddities",
        "data.images.resize_window",
        "data.source",
        "data.stream",
        "evaluation",
        "models",
        "parity",
        "reports",
        "runs",
        "seeds",
        "sharding",
        "training",
        "weights.convnet_names",
        "weights.fit",
        "weights.identify",
        "weights.load",
        "weights.transformer_layout",
        "weights.position_embeddings",
        "weights.reading",
        "weights.save",
    )
]


NO_ARRAYS = (None, type(None), ...)


def install() -> None:
    """Check shapes in all modules of the package that are imported from now on."""
    jaxtyping.install_import_hook(CHECKED, f"{__name__}.checked")


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Check nothing meanwhile: sides of symbolic length, as in exports, are no numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def checked(function: Any) -> Any:
    """Have beartype check what a function's annotations say of arrays, and nothing else."""
    # JAX puts dataclasses of arrays together around whatever a tree's leaves have become.
    if function.__name__ == "__init__":
        return function
    hints = {name: _of_arrays(hint) for name, hint in function.__annotations__.items()}
    if all(hint in (Any, *NO_ARRAYS) for hint in hints.values()):
        return function
    function.__annotations__ = hints
    return beartype(function)


def _of_arrays(hint: Any) -> Any:
    """Return a hint in which only shapes and element types are left, of arrays of any library."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.dtype[Any, hint.dim_str]
    parts = [_of_arrays(part) for part in get_args(hint)]
    if all(part in (Any, *NO_ARRAYS) for part in parts):
        return hint if hint in NO_ARRAYS else Any
    if get_origin(hint) is collections.abc.Callable:
        return Any
    if isinstance(hint, types.UnionType):
        return functools.reduce(operator.or_, parts)
    return get_origin(hint)[tuple(parts)]
