"""How a kernel is called: on NVIDIA GPUs compiled, in tests interpreted, elsewhere its plain twin.

Kernels are written in Pallas and compiled by XLA's Triton. JAX 0.11 calls this way of compiling
them deprecated; where it is gone, or refuses a kernel, the twin is computed and a line is logged.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jaxtyping import Array

from deit_jax.devices import on_nvidia
from deit_jax.sharding import per_device

_LOG = logging.getLogger("deit_jax")
_INTERPRETED: ContextVar[bool] = ContextVar("interpreted", default=False)
RowArrays = tuple[Array | None, ...]


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Let JAX interpret the kernels of what is traced inside, on any device: slow, for tests."""
    token = _INTERPRETED.set(True)
    try:
        yield
    finally:
        _INTERPRETED.reset(token)


class Kernel(NamedTuple):
    """A kernel beside what XLA makes of the same formula.

    Attributes:
        run: of a tuple of arrays with equally many rows, and of whole arrays; returns arrays of as
            many rows, or sums over some of the rows each.
        twin: the same function.
        misfit: of the same arguments, what it cannot compute of them; "" if it can.
    """

    run: Callable[..., tuple[Array, ...]]
    twin: Callable[..., tuple[Array, ...]]
    misfit: Callable[..., str]

    def __call__(self, rows: RowArrays, *whole: Array, **options: Any) -> tuple[Array, ...]:
        """Compute it; on several devices each its own rows. Options are no arrays."""
        if problem := self.problem(rows, whole, options):
            name = self.run.__name__.strip("_")
            _say_once(f"The fused kernel {name} is left to XLA: {problem}.")
            return self.twin(rows, *whole, **options)
        return per_device(functools.partial(self.run, **options), check_vma=False)(rows, *whole)

    def problem(self, rows: RowArrays, whole: RowArrays, options: dict[str, Any]) -> str:
        """Return why the kernel cannot compute this here, "" if it can."""
        if not (_INTERPRETED.get() or on_nvidia()):
            return "it is for NVIDIA GPUs of compute capability 8.0 or higher"
        misfit = self.misfit(rows, *whole, **options)
        if misfit or _INTERPRETED.get():
            return misfit
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (rows, whole))
        return refusal(self.run, shapes, tuple(sorted(options.items())))


@functools.cache
def _say_once(text: str) -> None:
    _LOG.warning(text)


@functools.cache
def refusal(run: Callable, shapes: tuple[RowArrays, RowArrays], options: tuple) -> str:
    """Return why a kernel cannot be compiled, "" if it can: by trying.

    Where the GPU is elsewhere, Triton's own compiler is not asked.
    """
    rows, whole = shapes
    jitted = jax.jit(functools.partial(run, **dict(options)))
    try:
        if jax.devices()[0].platform == "gpu":
            # For one device, whatever the mesh that is traced for.
            with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
                jitted.lower(rows, *whole).compile()
        else:
            jitted.trace(rows, *whole).lower(lowering_platforms=("cuda",))
    # Whatever another JAX, XLA or GPU says against it: there is another way.
    except Exception as error:
        words = " ".join(str(error).split())[:200].rstrip(".")
        return f"it does not compile here ({type(error).__name__}: {words})"
    return ""


def launch_kernel(
    name: str,
    body: Callable[..., None],
    arguments: RowArrays,
    grid: tuple[int, ...],
    blocks: tuple[list[pl.BlockSpec], list[pl.BlockSpec]],
    results: list[jax.ShapeDtypeStruct],
    *,
    warps: int = 4,
    stages: int = 1,
    operations: int = 0,
) -> tuple[Array, ...]:
    """Run a kernel once for every place of a grid.

    Args:
        name: that the compiled program calls it by, to who reads it.
        body: of references to one block of every argument and of every result.
        arguments: arrays.
        grid: places along each axis.
        blocks: of arguments, and of results.
        results: shapes and types.
        warps: of 32 threads, at each place.
        stages: loads that loops begin ahead.
        operations: of its products, in bfloat16; likewise.
    """
    options: dict[str, Any] = {}
    if not _INTERPRETED.get():
        settings = _triton().CompilerParams(num_warps=warps, num_stages=stages)
        options["compiler_params"] = settings
    return tuple(
        pl.pallas_call(
            body,
            grid=grid,
            in_specs=blocks[0],
            out_specs=blocks[1],
            out_shape=results,
            interpret=_INTERPRETED.get(),
            metadata={"kernel": name, "operations": str(operations)},
            **options,
        )(*arguments)
    )


def load(place: Any, mask: Array) -> Array:
    """Return what a reference's place holds, and 0 where the mask is not set."""
    return _triton().load(place, mask=mask, other=0.0)


def store(place: Any, values: Array, mask: Array) -> None:
    """Put values there where the mask is set, in the type of the reference."""
    _triton().store(place, values.astype(place.dtype), mask=mask)


def _triton() -> Any:
    """Import it late: where JAX has it no more, only the kernels miss it."""
    from jax.experimental.pallas import triton

    return triton


def power_of_two(number: int, most: int) -> int:
    """Return the largest power of two, up to `most`, that divides a number."""
    return min(number & -number, most)
