"""Whether the device computes what a CPU computes in float32: logits, gradients, one whole step."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jax_side
from benchmarks.cases import Case
from benchmarks.slot.sizes import Sizes, sizes
from deit_jax.devices import traced_for
from deit_jax.models.attention import AttentionForm
from deit_jax.models.functional import abstract, initialise
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.trees import Tree

FORMS: tuple[tuple[str, str, AttentionForm], ...] = (
    ("float32", "float32", "auto"),
    ("bfloat16", "bfloat16", "auto"),
    ("bfloat16, own attention", "bfloat16", "recompute"),
)
LIMITS = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest distance, relative to the reference's norm. Sums of up to 1,536 float32 products in
another order differ by some 1e-6 of the largest; twelve blocks rounded to the 8 bits of bfloat16
by about 1e-2."""


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    chosen = sizes(small)
    return lambda part: {"logits": _logits, "gradients": _gradients, "step": _step}[part](chosen)


def _logits(chosen: Sizes) -> dict[str, Any]:
    return _compare(chosen, lambda function, params, images, labels: function(params, images))


def _gradients(chosen: Sizes) -> dict[str, Any]:
    def gradients(function: Callable, params: Tree, images: jax.Array, labels: jax.Array) -> Tree:
        def loss(params: Tree) -> jax.Array:
            logs = jax.nn.log_softmax(function(params, images))
            return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()

        return jax.grad(loss)(params)

    return _compare(chosen, gradients)


def _compare(chosen: Sizes, compute: Callable) -> dict[str, Any]:
    """Compute something of the model on the CPU in float32, and on the device in every form."""
    spec = model_spec(chosen.model)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(chosen.check, *spec.image_size, 3)).astype(np.float32)
    labels = draw.integers(0, spec.num_classes, chosen.check, np.int32)
    # Random biases too, which the initialisation sets to zero.
    params = jax.tree.map(
        lambda x: np.asarray(x) + 0.02 * draw.normal(size=x.shape).astype(np.float32),
        initialise(model_builder(chosen.model), jax.random.key(0))[0],
    )

    def result(dtype: str, form: AttentionForm) -> Tree:
        build = model_builder(chosen.model, dtype=jnp.dtype(dtype), attention=form)
        function = abstract(build)[0]

        def logits(params: Tree, images: jax.Array) -> jax.Array:
            return function.head_logits(params, {}, images)[0][0]

        with jax.default_matmul_precision("highest"):
            return jax.device_get(jax.jit(partial(compute, logits))(params, images, labels))

    with on_cpu():
        reference = result("float32", "recompute")
    return _verdict({name: _distance(result(*form), reference) for name, *form in FORMS})


def _step(chosen: Sizes) -> dict[str, Any]:
    """Take one whole step from the same state: loss, gradient's norm, first moments, update."""

    def result(dtype: str) -> tuple[Tree, Tree]:
        case = Case(chosen.model, "train", chosen.check, dtype)
        with jax.default_matmul_precision("highest"):
            parts = jax_side.training(case)
            # Drawn alike everywhere: the devices share one generator of random numbers.
            before = jax.device_get(parts.state["params"])
            state = jax.device_get(jax.jit(parts.step)(parts.state, {}, parts.batch))
        update = jax.tree.map(np.subtract, state["params"], before)
        return state, update

    with on_cpu():
        reference, update = result("float32")
    errors: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        state, taken = result(dtype)
        sums, expected = state["sums"], reference["sums"]
        for key in ("loss", "gradient_norm"):
            errors[f"{dtype}, {key}"] = abs(float(sums[key] / expected[key]) - 1.0)
        errors[f"{dtype}, moments"] = _distance(_moments(state), _moments(reference))
        # Adam's first step is the gradient's sign, which rounding turns where there is none.
        errors[f"{dtype}, angle of the update"] = 1.0 - _cosine(taken, update)
    return _verdict(errors)


def _moments(state: Tree) -> list[np.ndarray]:
    """Return the first moments: after one step, a tenth of the gradient."""
    return [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["opt_state"])
        if ".mu" in jax.tree_util.keystr(path)
    ]


def _verdict(errors: dict[str, float]) -> dict[str, Any]:
    wrong = [name for name, e in errors.items() if not e <= LIMITS[name.split(",")[0]]]
    return errors | {"agrees": "no: " + "; ".join(wrong) if wrong else "yes"}


def _distance(found: Tree, reference: Tree) -> float:
    """Return |found - reference| / |reference| over all leaves; NaN where anything is."""
    x, y = _vector(found), _vector(reference)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def _cosine(x: Tree, y: Tree) -> float:
    x, y = _vector(x), _vector(y)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def _vector(tree: Tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Trace and run inside as on a machine without another device."""
    with jax.default_device(jax.devices("cpu")[0]), traced_for("cpu"):
        yield
