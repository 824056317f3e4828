"""Operations of JAX beside what ONNX Runtime makes of their translation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.export.onnx_graph import Graph
from deit_jax.export.onnx_rules import TRANSLATIONS
from deit_jax.models.convolution import convolve
from deit_jax.models.frozen import fold_batch_norm
from deit_jax.models.resnet import max_pool
from deit_jax.parity.our_model import random_subject

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow
KERNEL = np.random.default_rng(1).standard_normal((3, 3, 2, 8)).astype(np.float32)
MATRIX = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)


def translated(function, shape):
    """What runs a function's translation, for a batch of any size."""
    graph, text = Graph(TRANSLATIONS), ", ".join(["b", *map(str, shape)])
    argument = jax.ShapeDtypeStruct(jax.export.symbolic_shape(text), jnp.float32)
    result, kind = graph.trace(function, argument, "x")
    graph.rename(result, "y")
    sides = [side if isinstance(side, int) else "n" for side in kind.shape]
    data = graph.model(
        graph.tensor_info("x", np.float32, ("b", *shape)),
        graph.tensor_info("y", kind.dtype, sides),
        {"said": "so"},
    )
    session = onnxruntime.InferenceSession(data)
    assert session.get_modelmeta().custom_metadata_map == {"said": "so"}
    return lambda batch: session.run(None, {"x": batch})[0]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x[:, 1] - x[:, -1], (4, 3)),
        (lambda x: x[:, :2].reshape(-1, 3), (4, 3)),
        (lambda x: x[:, ::2, ::3], (6, 7, 2)),
        (lambda x: jnp.concatenate([jnp.ones((x.shape[0], 1, 3)), x], 1), (4, 3)),
        (lambda x: jax.nn.softmax(x * 3), (4, 3)),
        (lambda x: x @ MATRIX, (3, 4)),
        (lambda x: jnp.einsum("bij,ckj->cbki", x, MATRIX[None]), (3, 6)),
        (lambda x: jnp.einsum("bij,bkj->bik", x, x), (3, 6)),
        (lambda x: jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape), (3, 6)),
        (lambda x: jnp.where(x > 0.5, jax.nn.silu(x), x**3), (3, 6)),
        (lambda x: convolve(x, KERNEL, groups=4, stride=2, form="native"), (7, 6, 8)),
        (
            lambda x: convolve(x, KERNEL, groups=4, same_padding=True, stride=2, form="native"),
            (8, 8, 8),
        ),
        (lambda x: convolve(x, KERNEL[:, :, :1], groups=8, form="native"), (8, 8, 8)),
        (max_pool, (9, 8, 2)),
        (lambda x: jnp.arange(x.shape[0])[:, None] + x, (2,)),
    ],
)
def test_operations(function, shape):
    run = translated(function, shape)
    for batch in (1, 5):
        x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
        expected = function(jnp.asarray(x))
        np.testing.assert_allclose(run(x), expected, rtol=1e-5, atol=1e-5)


def test_a_convnet():
    subject = random_subject("regnety_micro", 0)
    function, params = fold_batch_norm(subject.function, subject.params, subject.batch_stats)
    params = jax.tree.map(np.asarray, params)
    run = translated(lambda x: function.merge(params, {})(x), (16, 16, 3))
    x = np.random.default_rng(0).standard_normal((7, 16, 16, 3)).astype(np.float32)
    model = subject.function.merge(subject.params, subject.batch_stats)
    expected = jax.jit(lambda x: model(x))(x)
    np.testing.assert_allclose(run(x), expected, rtol=0, atol=1e-5)


def test_what_has_no_rule_is_named():
    with pytest.raises(ValueError, match="no rule for cumsum, which this model needs"):
        translated(lambda x: jnp.cumsum(x, axis=1), (3,))
