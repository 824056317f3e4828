"""Convolutions beside PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from deit_jax.models.convolution import convolve, pointwise
from deit_jax.sharding import batch_split_over, replicated, split_over_batch


def torch_convolve(images, kernel, stride, groups):
    images, kernel = torch.as_tensor(images), torch.as_tensor(kernel)
    padding = (kernel.shape[0] - 1) // 2
    outputs = torch.nn.functional.conv2d(
        images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), None, stride, padding, 1, groups
    )
    return outputs.permute(0, 2, 3, 1)


def draw(size, groups, side=(9, 8), width=12):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *side, width)).astype(np.float32)
    kernel = rng.normal(size=(size, size, width // groups, 24)).astype(np.float32)
    return images, kernel


@pytest.mark.parametrize("form", ["split", "native", None])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 3), (2, 4)])
def test_values_and_gradients_equal_torch(form, stride, groups):
    images, kernel = draw(3, groups)
    ours, pullback = jax.vjp(
        jax.jit(lambda x, k: convolve(x, k, stride=stride, groups=groups, form=form)),
        images,
        kernel,
    )
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (images, kernel)]
    theirs = torch_convolve(*tensors, stride, groups)
    assert ours.shape == theirs.shape
    cotangent = np.random.default_rng(1).normal(size=ours.shape).astype(np.float32)
    theirs.backward(torch.from_numpy(cotangent).double())
    # Sums of at most 108 products for values and 9 * 8 * 2 for gradients, in float32.
    np.testing.assert_allclose(ours, theirs.detach(), atol=2e-5)
    for gradient, tensor in zip(pullback(jnp.asarray(cotangent)), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, atol=5e-5)


def test_even_images_are_not_shifted_as_same_padding_would():
    images, kernel = draw(3, 1, side=(8, 8))
    same = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = convolve(images, kernel, stride=2)
    assert same.shape == ours.shape and np.abs(same - ours).max() > 1.0


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_equals_torch(stride):
    images, kernel = draw(1, 1)
    ours = pointwise(images, kernel, stride=stride)
    np.testing.assert_allclose(ours, torch_convolve(images, kernel, stride, 1), atol=1e-5)


@pytest.mark.parametrize(("size", "groups"), [(1, 1), (3, 1), (3, 4)])
def test_bfloat16_products_are_accumulated_in_float32(size, groups):
    images, kernel = (jnp.asarray(a, jnp.bfloat16) for a in draw(size, groups))
    ours = pointwise(images, kernel) if size == 1 else convolve(images, kernel, groups=groups)
    exact = [np.asarray(a.astype(jnp.float32)).astype(np.float64) for a in (images, kernel)]
    # A product of bfloat16 numbers is exact in float32; only the sums are rounded.
    np.testing.assert_allclose(ours, torch_convolve(*exact, 1, groups), atol=2e-5)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [(9, 8), (8, 8)])
def test_depthwise_shifts_equal_the_grouped_convolution(same, size, stride, side):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *side, 12)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 12)).astype(np.float32)
    ours = convolve(images, kernel, stride=stride, groups=12, same_padding=same, form="shifts")
    padding = "SAME" if same else [(size // 2, size // 2)] * 2
    theirs = jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=12,
    )
    # Sums of 9 or 25 products in float32.
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("form", ["split", "native"])
def test_eight_devices_convolve_their_own_images_alone(form, eight_devices):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(16, 8, 8, 12)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4, 24)).astype(np.float32)

    def loss(images, kernel):
        return jnp.mean(convolve(images, kernel, stride=2, groups=3, form=form) ** 2)

    def split(images, kernel):
        with batch_split_over(eight_devices):
            return loss(images, kernel)

    gradients = jax.grad(split, argnums=(0, 1))
    rows, everywhere = split_over_batch(eight_devices), replicated(eight_devices)
    compiled = jax.jit(gradients, in_shardings=(rows, everywhere)).lower(images, kernel).compile()
    assert "all-gather" not in compiled.as_text()
    expected = jax.grad(loss, argnums=(0, 1))(images, kernel)
    ours = compiled(jax.device_put(images, rows), jax.device_put(kernel, everywhere))
    for gradient, other in zip(ours, expected, strict=True):
        # Of the kernel: eight sums of float32 are added in place of one.
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-8)
