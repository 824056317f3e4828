"""Single layers and products of the step, at the sizes that they have there."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.slot.formulations import formulated
from benchmarks.slot.sizes import Sizes, sizes
from benchmarks.slot.tasks import NeedsDevice
from benchmarks.timing import Program, spread, take_turns
from deit_jax.devices import on_nvidia
from deit_jax.models import cudnn_attention, layers
from deit_jax.models.attention import attend
from deit_jax.models.fused import add_norm, gelu
from deit_jax.models.fused.calls import interpreted
from deit_jax.models.layer_norm import layer_norm
from deit_jax.models.products import product
from deit_jax.models.registry import model_spec

_HALF = jnp.bfloat16


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    chosen = sizes(small)

    def measure(part: str) -> dict[str, Any]:
        if part == "attention":
            return _attention(chosen)
        if part == "products":
            return _products(chosen)
        if part in FUSED:
            return _fused(part, chosen, small)
        return _time({part: _elementwise(part, chosen)}, chosen)

    return measure


def _rows(chosen: Sizes, tokens: int = 0) -> tuple[int, int, int]:
    """Return rows of a batch, width, and heads."""
    sizes_ = model_spec(chosen.model).transformer
    assert sizes_
    patches = (model_spec(chosen.model).image_size[0] // sizes_.patch_size) ** 2
    return chosen.batch * (tokens or patches + 1), sizes_.width, sizes_.num_heads


def _elementwise(part: str, chosen: Sizes) -> Callable[[], Any]:
    """Return a call of a layer and its backward pass, which gives what both do."""
    rows, width, _ = _rows(chosen)

    def both(layer: Callable[..., jax.Array], gradient: jax.Array, *x: jax.Array) -> tuple:
        out, back = jax.vjp(layer, *x)
        # Without the result XLA would leave the forward pass out.
        return (out, *back(gradient))

    if part == "GELU":
        x = _normal((rows, 4 * width), _HALF)
        return _jitted(functools.partial(both, layers.gelu), x, x)
    x, scale = _normal((rows, width), jnp.float32), _normal((width,), jnp.float32)

    def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
        return layer_norm(x, scale, scale, 1e-6).astype(_HALF)

    return _jitted(functools.partial(both, norm), x.astype(_HALF), x, scale)


def _attention(chosen: Sizes) -> dict[str, Any]:
    """Time cuDNN's attention, both passes, at three numbers of tokens; and 197 padded."""
    if not cudnn_attention.takes(_HALF, 64):
        raise NeedsDevice("cuDNN's attention needs an NVIDIA GPU of compute capability 8.0")
    programs, errors = {}, {}
    for tokens, names in ((197, ()), (197, ("padded attention",)), (198, ()), (208, ())):
        rows, width, heads = _rows(chosen, tokens)
        x = [_normal((rows, width), _HALF, seed) for seed in range(4)]

        def both(form: Callable, q: Any, k: Any, v: Any, g: Any, heads: int = heads) -> Any:
            out, back = jax.vjp(lambda *parts: form(*parts, chosen.batch, heads), q, k, v)
            return (out, *back(g.astype(out.dtype)))

        label = f"{tokens} tokens" + ", padded" * bool(names)
        with formulated(names):
            programs[label] = _jitted(functools.partial(both, cudnn_attention.attend_cudnn), *x)
        if tokens == 197:
            wide = [y.astype(jnp.float32) for y in x]
            with jax.default_matmul_precision("highest"):
                expected = jax.jit(functools.partial(both, attend))(*wide)
            for name, found, true in zip(
                ("result", "query", "key", "value"), programs[label](), expected, strict=True
            ):
                distance = jnp.linalg.norm(found - true) / jnp.linalg.norm(true)
                errors[f"{label}: error of {name}"] = float(distance)
    return _time(programs, chosen) | errors


def _products(chosen: Sizes) -> dict[str, Any]:
    """Time every product of a block, by cuBLAS and by whatever XLA takes, bfloat16 out."""
    rows = [["product", "XLA's choice", "cuBLAS", "cuBLASLt"]]
    for name, x, y, over in _shapes(chosen):
        flops = 2 * x.size * y.size / x.shape[over[0]]
        function = functools.partial(product, over=over, out_dtype=_HALF)
        flags = (
            {},
            {"xla_gpu_enable_triton_gemm": False},
            {"xla_gpu_enable_triton_gemm": False, "xla_gpu_enable_cublaslt": True},
        )
        programs = {
            label: _jitted(function, x, y, **options)
            for label, options in zip(rows[0][1:], flags, strict=True)
        }
        times = _time(programs, chosen).values()
        rows.append([name, *(f"{ms:.4g} ms, {flops / ms / 1e9:.4g} TFLOP/s" for ms in times)])
    return {"what": f"products of a block, {chosen.batch} images", "table": rows}


def _shapes(chosen: Sizes) -> Iterator[tuple[str, jax.Array, jax.Array, tuple[int, int]]]:
    """Forward product, gradient of the input and of the weights, of all four layers of a block."""
    rows, width, _ = _rows(chosen)
    for name, columns_in, columns in (
        ("qkv", width, 3 * width),
        ("proj", width, width),
        ("fc1", width, 4 * width),
        ("fc2", 4 * width, width),
    ):
        x, kernel = _normal((rows, columns_in), _HALF), _normal((columns_in, columns), _HALF)
        grad = _normal((rows, columns), _HALF)
        yield f"{name} forward", x, kernel, (-1, -2)
        yield f"{name} input's gradient", grad, kernel, (-1, -1)
        yield f"{name} weights' gradient", x, grad, (-2, -2)


FUSED = {
    "add_norm_forward": add_norm.add_norm_forward,
    "add_norm_backward": add_norm.add_norm_backward,
    "product_gelu": gelu.product_gelu,
    "gradient_product_gelu": gelu.gradient_product_gelu,
}


def _fused(part: str, chosen: Sizes, small: bool) -> dict[str, Any]:
    """Hold a kernel against its twin in float32, then time it beside the twin as it is.

    A trial on another machine has it interpreted.
    """
    if not (on_nvidia() or small):
        raise NeedsDevice("fused kernels need an NVIDIA GPU of compute capability 8.0")
    kernel, (rows, whole, options) = FUSED[part], _arguments(part, chosen)
    with contextlib.nullcontext() if on_nvidia() else interpreted():
        if problem := kernel.problem(rows, whole, options):
            return {"agrees": f"no: {problem}"}
        ours = _jitted(functools.partial(kernel, **options), rows, *whole)
    plain = _jitted(functools.partial(kernel.twin, **options), rows, *whole)
    exact = dict.fromkeys(set(options) & {"dtype"}, jnp.dtype(jnp.float32))
    wide_rows, wide = jax.tree.map(lambda x: x.astype(jnp.float32), (rows, whole))
    with jax.default_matmul_precision("highest"):
        expected = kernel.twin(wide_rows, *wide, **options | exact)
    errors = [_distance(x, y) for x, y in zip(ours(), expected, strict=True)]
    times = _time({"ms": ours, "ms by XLA": plain}, chosen)
    moved = sum(x.nbytes for x in jax.tree.leaves((rows, whole, ours())))
    # Rounded to 8 bits once or twice, and summed in another order.
    agrees = "yes" if max(errors) < 2**-7 else "no"
    return {"agrees": agrees, "errors": errors, **times, "GB/s": moved / times["ms"] / 1e6}


def _distance(found: jax.Array, expected: jax.Array) -> float:
    """Return |found - expected| / |expected|; sums may come in parts that are to be added up."""
    if found.shape != expected.shape:
        found, expected = found.sum(0), expected.sum(0)
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def _arguments(part: str, chosen: Sizes) -> tuple[tuple, tuple, dict[str, Any]]:
    """Return a kernel's arguments, rows and whole arrays, and its options, as in a block."""
    rows, width, _ = _rows(chosen)
    half, wide = _normal((rows, width), _HALF), _normal((rows, 4 * width), _HALF, 1)
    line, vector = jnp.ones((rows,), jnp.float32), _normal((width,), jnp.float32)
    first = _normal((width, 4 * width), _HALF, 2) / width**0.5
    options: dict[str, Any] = {"dtype": jnp.dtype(_HALF)}
    if part == "add_norm_forward":
        return (half, half, line), (vector, vector, vector), options | {"epsilon": 1e-6}
    if part == "add_norm_backward":
        return (half, half, half, 0 * line, line, line), (vector,), options
    if part == "product_gelu":
        return (half,), (first, _normal((4 * width,), jnp.float32)), {}
    return (half, wide), (first.T,), {}


def _normal(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def _jitted(function: Callable, *args: Any, **options: Any) -> Callable[[], Any]:
    compiled = jax.jit(function, compiler_options=options or None).lower(*args).compile()
    return functools.partial(compiled, *args)


def _time(calls: dict[str, Callable[[], Any]], chosen: Sizes) -> dict[str, Any]:
    """Let calls take turns; return each one's median in ms."""
    programs = []
    for name, call in calls.items():
        held: dict[str, Any] = {}

        def run(call: Callable[[], Any] = call, held: dict[str, Any] = held) -> None:
            held["result"] = call()

        wait = functools.partial(jax.block_until_ready, held)
        programs.append(Program(name, 1, run, wait, jax.default_backend() == "cpu"))
    times = take_turns(programs, rounds=chosen.rounds, turn_seconds=min(chosen.turn_seconds, 0.05))
    return {p.name: 1e3 * spread(t).median for p, t in zip(programs, times, strict=True)}
