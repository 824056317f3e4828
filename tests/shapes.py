"""Every array that enters or leaves a function of the package has the shape its annotation says.

jaxtyping's import hook has beartype check the calls of all tests. Only annotations of arrays are
checked: the others are mypy's business, and stand-ins of tests are no subclasses of what they
replace.
"""

from typing import Any, get_args

import jaxtyping
from beartype import beartype

# Rooms and modules whose functions take arrays. Not `data.images.resize_kernel`, which numba
# compiles from its bytecode.
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
        "weights",
    )
]


def install() -> None:
    """Check shapes in all modules of the package that are imported from now on."""
    jaxtyping.install_import_hook(CHECKED, f"{__name__}.checked")


def checked(function: Any) -> Any:
    """Have beartype check what a function's annotations say of arrays, and nothing else."""
    hints = function.__annotations__
    arrays = {name: hint for name, hint in hints.items() if _speaks_of_arrays(hint)}
    if not arrays:
        return function
    function.__annotations__ = dict.fromkeys(hints, Any) | arrays
    return beartype(function)


def _speaks_of_arrays(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_speaks_of_arrays(part) for part in get_args(hint))
