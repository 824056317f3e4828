"""Pictures of attention: what lies where, and what it is scaled to."""

import numpy as np
import pytest
from PIL import Image

from deit_jax.reports.attention import Seen, _over, draw_attention, draw_cosines


def seen(prefix=2, size=(16, 32), depth=3, heads=2):
    rng = np.random.default_rng(0)
    grid = (size[0] // 8, size[1] // 8)
    shares = rng.random((prefix, depth, heads, *grid), np.float32)
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    return Seen("a $name", pixels, shares, shares.mean(2))


def test_each_patch_gets_the_colour_of_its_share():
    pixels = np.zeros((16, 32, 3), np.uint8)
    grid = np.zeros((2, 4), np.float32)
    grid[1, 2] = 0.3
    bright = _over(pixels, grid, 0.3, signed=False).sum(-1)
    rows, columns = np.nonzero(bright > bright.max() / 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 16, 23)
    # Of a difference: warm where it is positive, cold where negative, grey at zero.
    grid[0, 0] = -0.3
    picture = _over(pixels, grid, 0.3, signed=True)
    assert picture[8, 16, 0] > 2 * picture[8, 16, 2] and picture[0, 0, 2] > 2 * picture[0, 0, 0]
    assert np.ptp(picture[0, 8]) < 0.02


def test_rows_are_tokens_and_their_difference():
    both, one = seen(), seen(prefix=1)
    names = ["class token", "distillation token", "class - distillation"]
    assert [name for name, _ in both.rows] == names
    assert [name for name, _ in one.rows] == names[:1]
    (_, first), (_, second), (_, difference) = both.rows
    np.testing.assert_array_equal(difference, first - second)
    # Heads, their mean, the rollout.
    np.testing.assert_array_equal(first[:, :2], both.heads[0])
    np.testing.assert_allclose(first[:, 2], both.heads[0].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(first[:, 3], both.rollout[0])


@pytest.mark.slow
def test_pictures_are_written(tmp_path):
    names = draw_attention(seen(), tmp_path / "new")
    assert names == ["overview.png", "class.png", "distillation.png", "difference.png"]
    for name in names:
        assert np.asarray(Image.open(tmp_path / "new" / name).convert("RGB")).std() > 20
    # Another model has but one token: nothing of the first is left.
    assert draw_attention(seen(prefix=1), tmp_path / "new") == names[:2]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["class.png", names[0]]
    layers = ["learned", "input", "block 0", "final norm"]
    draw_cosines(np.full((4, 2), 0.5), layers, "$model", tmp_path / "cosine.png")
    assert Image.open(tmp_path / "cosine.png").width > 800
