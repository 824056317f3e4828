import numpy as np
import pytest
from PIL import Image

from deit_jax.cli import augment
from deit_jax.cli.arguments import parse
from deit_jax.cli.main import parser_of
from deit_jax.reports import contact_sheet


@pytest.fixture
def photograph(tmp_path):
    # Takes a second to import, which other test processes are spared.
    from sklearn.datasets import load_sample_images

    path = tmp_path / "photograph.png"
    Image.fromarray(load_sample_images().images[0][100:160, 200:290]).save(path)
    return path


def run(*words):
    return augment.run(parse(parser_of("augment"), [str(word) for word in words]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "rows"), [("deit3", 3), pytest.param("deit", 4, marks=pytest.mark.full)]
)
def test_sheet_shows_every_stage(photograph, tmp_path, capsys, recipe, rows):
    output = tmp_path / "sheet.png"
    words = (photograph, "--columns", 3, "--size", 32, "--seed", 3, "--output", output)
    assert run(*words, "--recipe", recipe) == 0
    assert f"Wrote {output}: 3 samples of recipe '{recipe}'." in capsys.readouterr().out
    sheet = np.asarray(Image.open(output))
    # Rows of three pictures with captions, on white.
    assert sheet.shape[1] == 6 + 3 * 38 and sheet.shape[0] >= rows * (32 + 2 * 15)
    assert (sheet[0] == 255).all()
    again = tmp_path / "again.png"
    run(*words[:-1], again, "--recipe", recipe)
    np.testing.assert_array_equal(np.asarray(Image.open(again)), sheet)


def test_the_crop_row_shows_the_crop(photograph, tmp_path):
    output = tmp_path / "sheet.png"
    assert (
        run(photograph, "--columns", 1, "--size", 32, "--output", output, "--recipe", "light") == 0
    )
    sheet = np.asarray(Image.open(output))
    crop = contact_sheet.random_crop(Image.open(photograph).convert("RGB"), 32, [0, 0, 0])
    np.testing.assert_array_equal(sheet[21:53, 6:38], crop)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--recipe", "deit4"], ValueError, "Unknown recipe 'deit4'"),
        (["missing.jpg"], FileNotFoundError, "no image file missing.jpg"),
    ],
)
def test_bad_input_is_named(photograph, words, error, message):
    with pytest.raises(error, match=message):
        run(photograph, *words)


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg is not an image"):
        run(path)
