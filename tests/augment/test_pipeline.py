"""The whole augmentation: against Pillow given the same choices, and across devices and batches."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec
from timm.data import random_erasing as timm_erasing
from torchvision import transforms

from benchmarks.pillow_augmentation import apply_on_host, augment_on_host, levels_on_host
from deit_jax.augment import selection
from deit_jax.augment.choices import draw_boxes, draw_choices
from deit_jax.augment.erasing import box_noise, largest_box
from deit_jax.augment.framing import flip_selected, pad_and_crop
from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.pipeline import (
    apply_choices,
    apply_to_levels,
    apply_to_values,
    augment_images,
    normalise,
)
from deit_jax.augment.recipes import RECIPES, recipe_named
from deit_jax.schema.images import IMAGENET_MEAN, IMAGENET_STD, NORMALISED

DEIT = replace(
    NORMALISED,
    flip=0.5,
    policy="rand-m9-mstd0.5-inc1",
    interpolation="random",
    erasing_probability=0.5,
    erasing_count=2,
)

# Quick to compile, with every way of working: tables, a blend, boxes of rows, boxes of noise.
SMALL = replace(NORMALISED, flip=0.5, policy="3a", crop_padding=2, erasing_probability=0.5)
AUGMENT = jax.jit(augment_images, static_argnums=(2, 3))
NOISE = jax.jit(box_noise, static_argnums=(1, 2, 3, 4))


def keys_of(index, epoch=0, copy=0):
    index = jnp.asarray(index)
    keys = image_keys(0, jnp.full_like(index, epoch), index, jnp.full_like(index, copy))
    return purpose(keys, "augment")


@pytest.mark.parametrize(
    "options",
    [
        DEIT,
        pytest.param(replace(NORMALISED, policy="v0", flip=0.5), marks=pytest.mark.full),
        RECIPES["deit3-src"].augment,
    ],
    ids=["deit", "v0", "deit3"],
)
def test_device_equals_pillow_given_the_same_choices(pictures, options):
    images = pictures.mixed(48, 40, 40)
    choices = jax.jit(draw_choices, static_argnums=(1, 2, 3))(
        keys_of(range(len(images))), options, 48, 40
    )
    levels = np.asarray(jax.jit(apply_to_levels, static_argnums=2)(images, choices, options))
    expected = levels_on_host(images, choices, options, threads=2)
    # A level that differs after one operation may differ by more after the next, and rarely does:
    # geometric operations alone differ on about 2 pixels in a million.
    assert (levels != expected).mean() < 1e-4
    found = np.asarray(jax.jit(apply_to_values, static_argnums=2)(levels, choices, options))
    normalised = apply_on_host(images, choices, options)
    same = np.broadcast_to((levels == expected).all(axis=(1, 2, 3), keepdims=True), found.shape)
    np.testing.assert_allclose(found[same], normalised[same], atol=1e-6)


def test_drawing_and_applying_are_one_on_either_side(pictures):
    images, keys = pictures.mixed(32, 32, 4), keys_of(range(15))
    options = replace(NORMALISED, flip=0.5, crop_padding=3, erasing_probability=0.9)
    found = AUGMENT(images, keys, options)
    np.testing.assert_allclose(found, augment_on_host(images, keys, options), atol=1e-6)


def test_an_image_is_augmented_alike_in_any_batch(pictures):
    images = jnp.asarray(pictures.photographs(32, 40, 16))
    together = np.asarray(AUGMENT(images, keys_of(range(16)), SMALL))
    order = np.random.default_rng(0).permutation(16)
    shuffled = np.asarray(AUGMENT(images[order], keys_of(order), SMALL))
    np.testing.assert_array_equal(shuffled, together[order])
    again = np.asarray(AUGMENT(images, keys_of(range(16), epoch=1), SMALL))
    copied = np.asarray(AUGMENT(images, keys_of(range(16), copy=1), SMALL))
    for other in (again, copied):
        assert (other != together).any(axis=(1, 2, 3)).all()


# Programs as users compile them.
@pytest.mark.full
@pytest.mark.parametrize("options", [SMALL, DEIT])
def test_devices_and_rounds_do_not_change_the_result(
    pictures, monkeypatch, options, eight_devices, optimised_compilation
):
    def augment(images, keys):
        return jax.jit(lambda i, k: augment_images(i, k, options))(images, keys)

    images = jnp.asarray(pictures.photographs(32, 40, 16))
    keys = keys_of(range(16))
    expected = np.asarray(augment(images, keys))
    mesh = eight_devices
    split = NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.device_put((images, keys), split)
    step = AUGMENT.lower(*placed, options, split).compile()
    for moving in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert moving not in step.as_text()
    found = step(*placed)
    assert found.sharding.is_equivalent_to(split, 4)
    np.testing.assert_array_equal(found, expected)
    # The way of accelerators: several images a round, and a round that is not full.
    monkeypatch.setattr(selection.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(selection, "ROUND", 3)
    found = jax.jit(lambda i, k: augment_images(i, k, options))(images, keys)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("gpu", marks=pytest.mark.full)])
def test_memory_of_a_large_batch_is_a_small_multiple_of_it(monkeypatch, backend):
    """Compiled for 1,024 images of 224 x 224, not run."""
    monkeypatch.setattr(selection.jax, "default_backend", lambda: backend)
    options = RECIPES["deit"].augment
    images = jax.ShapeDtypeStruct((1024, 224, 224, 3), jnp.uint8)
    compiled = (
        jax.jit(lambda i, k: augment_images(i, k, options))
        .lower(images, jax.eval_shape(lambda: keys_of(range(1024))))
        .compile()
    )
    memory = compiled.memory_analysis()
    batch = images.size
    assert memory.output_size_in_bytes == 4 * batch
    # One working copy of the levels, and what a round of images takes.
    assert memory.temp_size_in_bytes < (2 if backend == "cpu" else 3.5) * batch


def test_normalisation_equals_torchvision(pictures):
    images = pictures.mixed(9, 7, 2)
    convert = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
    expected = np.stack([convert(image).numpy().transpose(1, 2, 0) for image in images])
    found = np.asarray(normalise(jnp.asarray(images), IMAGENET_MEAN, IMAGENET_STD))
    assert found.dtype == np.float32
    # One multiplication and one addition, against a division, a subtraction and a division.
    np.testing.assert_allclose(found, expected, atol=5e-7)
    default = AUGMENT(images, keys_of(range(len(images))), NORMALISED)
    np.testing.assert_allclose(default, expected, atol=5e-7)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crops_and_flips(pictures, mode):
    images = pictures.noise(10, 7, 25)
    offsets = np.stack(np.meshgrid(range(5), range(5)), -1).reshape(-1, 2)
    found = pad_and_crop(jnp.asarray(images), jnp.asarray(offsets), 2, mode)
    padding = transforms.Pad(2, padding_mode=mode)
    for number, (top, left) in enumerate(offsets):
        padded = padding(torch.tensor(images[number].transpose(2, 0, 1))).numpy()
        expected = padded[:, top : top + 10, left : left + 7].transpose(1, 2, 0)
        np.testing.assert_array_equal(found[number], expected)
    selected = np.arange(25) % 2 == 0
    flipped = np.asarray(flip_selected(jnp.asarray(images), jnp.asarray(selected)))
    np.testing.assert_array_equal(flipped[selected], images[selected][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~selected], images[~selected])


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
@pytest.mark.parametrize("count", [1, 3])
def test_erasing_equals_timm_given_the_same_draws(pictures, monkeypatch, mode, count):
    options = replace(NORMALISED, erasing_probability=1.0, erasing_mode=mode, erasing_count=count)
    images = pictures.noise(20, 30, 6)
    choices = jax.jit(draw_choices, static_argnums=(1, 2, 3))(keys_of(range(6)), options, 20, 30)
    found = np.asarray(jax.jit(apply_choices, static_argnums=2)(images, choices, options))
    whole = np.array(normalise(jnp.asarray(images), options.mean, options.std))
    boxes = jax.tree.map(np.asarray, choices.boxes)
    eraser = timm_erasing.RandomErasing(1.0, mode=mode, max_count=count, device="cpu")
    for number in range(6):
        top, left, tall, wide = (side[number] for side in boxes)
        present = [at for at in range(count) if tall[at]]
        uniform = iter(
            [
                v
                for at in present
                for v in (tall[at] * wide[at] * len(present) / 600, np.log(tall[at] / wide[at]))
            ]
        )
        places = iter([v for at in present for v in (top[at], left[at])])
        first, order = [len(present)] if count > 1 else [], iter(present)

        def whole_number(low, high, first=first, places=places):
            return first.pop() if first else next(places)

        def pixels(per_pixel, rand_color, size, dtype, device, number=number, order=order):
            noise = np.asarray(
                box_noise(choices.noise[number][None], next(order), options, 20, 30)
            )[0]
            if not per_pixel:
                return torch.tensor(noise[0])[:, None, None]
            area = noise[: size[1] * size[2]].reshape(*size[1:], 3)
            return torch.tensor(area.transpose(2, 0, 1))

        monkeypatch.setattr(timm_erasing.random, "random", lambda: 0.0)
        monkeypatch.setattr(timm_erasing.random, "uniform", lambda *_, u=uniform: next(u))
        monkeypatch.setattr(timm_erasing.random, "randint", whole_number)
        monkeypatch.setattr(timm_erasing, "_get_pixels", pixels)
        expected = eraser(torch.tensor(whole[number].transpose(2, 0, 1).copy())).numpy()
        # Noise is equal; beside it normalisation may or may not be one fused rounding.
        np.testing.assert_allclose(found[number], expected.transpose(1, 2, 0), atol=5e-7)


def test_erasing_noise_is_normal_and_suffices_for_every_box():
    options = replace(NORMALISED, erasing_probability=1.0)
    noise = np.asarray(NOISE(keys_of(range(40)), 0, options, 32, 32))
    # 40,000 draws: the mean's standard error is 0.005, that of the deviation 0.0035.
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.015
    assert len(np.unique(noise)) > 0.99 * noise.size
    draw = jax.jit(draw_boxes, static_argnums=(1, 2, 3))
    for height, width in ((224, 224), (40, 17), (5, 300)):
        boxes = draw(keys_of(range(2000)), options, height, width)
        assert int((boxes.height * boxes.width).max()) <= largest_box(options, height, width)


def test_padding_larger_than_the_image_is_named():
    images = jnp.zeros((1, 4, 9, 3), jnp.uint8)
    with pytest.raises(ValueError, match="cannot be reflected in images of 4 x 9"):
        augment_images(images, keys_of([0]), replace(NORMALISED, crop_padding=4))


def test_recipes():
    assert recipe_named("deit").augment.policy == "rand-m9-mstd0.5-inc1"
    assert recipe_named("deit").augment.fill == (124, 116, 104)
    with pytest.raises(ValueError, match="Unknown recipe 'deit4': use one of deit"):
        recipe_named("deit4")
