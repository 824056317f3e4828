"""The fast kernel against Pillow, bit for bit; and what happens where it cannot be had."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from deit_jax.data.images import resize as module
from deit_jax.data.images.resize import FILTERS, Box, resize
from deit_jax.preprocessing import INTERPOLATIONS


def pillow(pixels, box, size, interpolation):
    """Resizes a cut-out box with Pillow, called here and nowhere else in this file."""
    cut = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    resized = Image.fromarray(cut).resize(size[::-1], Image.Resampling[interpolation.upper()])
    return np.asarray(resized)


def within(random, largest):
    """A length of 1 to `largest`, and a place for it."""
    length = int(random.integers(1, largest + 1))
    return length, int(random.integers(0, largest - length + 1))


def picture(random, height, width):
    """Noise, or only black and white, which overshoots at every edge and has to be clipped."""
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    return pixels if random.random() < 0.5 else (pixels > 127).astype(np.uint8) * np.uint8(255)


@pytest.fixture
def kernel():
    pytest.importorskip("numba")
    assert module._kernel() is not None


def compare(random, height, width, size, interpolation):
    pixels = picture(random, height, width)
    box_height, top = within(random, height)
    box_width, left = within(random, width)
    box = Box(top, left, box_height, box_width)
    out = np.full((*size, 3), 77, np.uint8)
    assert resize(pixels, size, interpolation, box=box, out=out) is out
    expected = pillow(pixels, box, size, interpolation)
    assert np.array_equal(out, expected), (height, width, box, size, interpolation)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("interpolation", FILTERS)
def test_random_boxes_equal_pillow(interpolation):
    random = np.random.default_rng(0)
    for _ in range(2000):
        height, width = random.integers(1, 140, 2).tolist()
        size = tuple(random.integers(1, 70, 2).tolist())
        compare(random, height, width, size, interpolation)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("interpolation", FILTERS)
def test_crops_of_photographs_equal_pillow(interpolation):
    # Larger than a block of 320 rows, at the sizes that training asks for.
    random = np.random.default_rng(1)
    for size in [(224, 224), (224, 160), (384, 384)] * 10:
        height, width = random.integers(200, 700, 2).tolist()
        compare(random, height, width, size, interpolation)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1),
        (5, 300),
        (300, 5),
        (1, 900),
        (900, 1),
        (2, 3),
        (3000, 40),
        (40, 3000),
        (16, 6),
        (505, 5),
        (500, 5),
        (320, 256),
        (321, 11),
        (15, 16),
        (639, 17),
    ],
)
def test_odd_shapes_equal_pillow(shape, interpolation):
    pixels = picture(np.random.default_rng(2), *shape)
    for size in [(1, 1), (16, 16), (224, 224), (7, 400), (400, 7), (1, 33), (33, 1), shape]:
        expected = pillow(pixels, Box(0, 0, *shape), size, interpolation)
        np.testing.assert_array_equal(resize(pixels, size, interpolation), expected)


@pytest.mark.full
@pytest.mark.usefixtures("kernel")
def test_many_large_boxes_equal_pillow():
    random = np.random.default_rng(3)
    for turn in range(6000):
        height, width = random.integers(1, 1100, 2).tolist()
        size = (224, 224) if turn % 2 else tuple(random.integers(1, 500, 2).tolist())
        compare(random, height, width, size, FILTERS[turn % 2])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("has_kernel", [True, False])
def test_windows_are_cut_out_of_what_pillow_makes(monkeypatch, has_kernel, interpolation):
    if not has_kernel:
        monkeypatch.setattr(module, "_kernel", lambda: None)
        # Made in NumPy, however much of the whole it is.
        monkeypatch.setattr(module, "_WASTE", 0)
    random = np.random.default_rng(6)
    for turn in range(60):
        shape = tuple(random.integers(1, 130 if turn % 2 else 9, 2).tolist())
        size = tuple(random.integers(1, 90, 2).tolist())
        (height, top), (width, left) = (within(random, side) for side in size)
        pixels = picture(random, *shape)
        window = Box(top, left, height, width)
        ours = resize(pixels, size, interpolation, window=window)
        whole = pillow(pixels, Box(0, 0, *shape), size, interpolation)
        expected = whole[top : top + height, left : left + width]
        assert np.array_equal(ours, expected), (shape, size, window)


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
def test_very_wide_images_equal_pillow():
    # So wide that fewer than a block of rows are taken at a time, and the last time under 16.
    pixels = picture(np.random.default_rng(7), 70, 200_000)
    for size in [(70, 9), (8, 200_000), (33, 11)]:
        expected = pillow(pixels, Box(0, 0, 70, 200_000), size, "bicubic")
        np.testing.assert_array_equal(resize(pixels, size), expected)


@pytest.mark.usefixtures("kernel")
def test_any_memory_layout_will_do():
    pixels = picture(np.random.default_rng(4), 60, 90)
    box, size = Box(3, 5, 40, 50), (24, 31)
    expected = pillow(pixels, box, size, "bicubic")
    frozen = pixels.copy()
    frozen.flags.writeable = False
    for other in (frozen, np.asfortranarray(pixels), pixels[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(resize(other, size, box=box), expected)


def test_pillow_stands_in_where_there_is_no_numba(monkeypatch):
    monkeypatch.setattr(module, "_kernel", lambda: None)
    random = np.random.default_rng(5)
    for _ in range(20):
        compare(random, 50, 70, (31, 24), "bicubic")


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


RESIZE = """
import sys
import numpy as np
from deit_jax.data.images.resize import resize
print(resize(np.arange(4800, dtype=np.uint8).reshape(40, 40, 3), (7, 9)).sum())
"""


def test_broken_or_missing_numba_costs_speed_only():
    expected = run("import sys; sys.modules['numba'] = None" + RESIZE)
    assert expected.strip().isdigit()
    # An installation that does not fit, such as one beside a NumPy that is too new.
    broken = """
import builtins
true = builtins.__import__
def refuse(name, *rest, **more):
    if name == "numba":
        raise ImportError("numba needs another NumPy")
    return true(name, *rest, **more)
builtins.__import__ = refuse
"""
    output = run(broken + RESIZE)
    assert expected in output and "numba needs another NumPy" in output


@pytest.mark.usefixtures("kernel")
def test_a_cache_that_cannot_be_written_costs_a_compilation_only(monkeypatch):
    from deit_jax.data.images import resize_kernel

    def njit(signature, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return lambda function: ("compiled", function)

    monkeypatch.setattr(resize_kernel.numba, "njit", njit)
    assert resize_kernel._compile() == ("compiled", resize_kernel._resize)


@pytest.mark.slow
def test_numba_is_not_imported_before_an_image_is_resized():
    code = (
        "import sys, deit_jax.data.stream.loader, deit_jax.data.stream.batches, numpy as np\n"
        "from deit_jax.data.images.resize import resize\n"
        "resize(np.zeros((16, 16, 3), np.uint8), (16, 16))\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules)"
    )
    run(code)


def test_reader_threads_load_the_kernel_one_at_a_time(monkeypatch):
    # Two that imported numba together used to take it for broken.
    loading, most = 0, 0

    def load():
        nonlocal loading, most
        loading += 1
        most = max(most, loading)
        time.sleep(0.01)
        loading -= 1

    monkeypatch.setattr(module, "_load_kernel", load)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: module._kernel(), range(8)))
    assert most == 1
