"""The examples of docs/api.md and of the notebook, executed as a reader would, in their order."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

import deit_jax
from tests.docs.documented import ROOT
from tests.test_earlier_formats import unpacked  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture
def reader(unpacked, tmp_path, monkeypatch):  # noqa: F811
    """A folder with what the examples name: two trained runs and two images."""
    for run in ("student", "teacher"):
        shutil.copytree(unpacked / "with_made_from" / "runs" / run, tmp_path / "runs" / run)
    Image.fromarray(load_sample_images().images[0]).save(tmp_path / "photo.jpg")
    digits = load_digits()
    three = digits.images[list(digits.target).index(3)]
    Image.fromarray((three * 255 / 16).astype(np.uint8)).save(tmp_path / "three.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def execute(sources, name):
    space = {"__name__": "__main__"}
    for number, source in enumerate(sources, start=1):
        exec(compile(source, f"{name}, block {number}", "exec"), space)
    return space


@pytest.mark.full
def test_the_page(reader, capsys):
    space = execute(blocks(ROOT / "docs" / "api.md"), "docs/api.md")
    assert "three.png" in capsys.readouterr().out
    student, images = space["student"], space["images"]
    assert images.shape == (2, 16, 16, 3) and space["logits"].shape == (2, 10)
    np.testing.assert_allclose(space["maps"].sum(-1), 1, rtol=1e-5)
    # The head reads the first token.
    head = student.model.head(space["tokens"][:, 0])
    np.testing.assert_allclose(student.model.head_logits(images)[0], head, rtol=1e-4, atol=1e-5)
    assert np.isfinite(space["loss"])
    # What was trained is what was saved.
    again = space["again"].model(images)
    np.testing.assert_allclose(space["trained"](images), again, rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_the_notebook(reader, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    file = ROOT / "docs" / "tour.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "EPOCHS = 30" in code[2]
    code[2] = code[2].replace("EPOCHS = 30", "EPOCHS = 1")
    space = execute(code, file.name)
    np.testing.assert_allclose(
        space["loaded"].model(space["pixels"][:2]), space["student"](space["pixels"][:2]), rtol=1e-5
    )
    # Kept with what it has printed and drawn, small enough for a page of the repository.
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert file.stat().st_size < 200_000


def test_all_public_names_are_on_the_page():
    page = (ROOT / "docs" / "api.md").read_text()
    assert all(f"`{name}" in page for name in deit_jax.__all__ if not name.startswith("__"))


def test_predictions_are_the_softmax_of_what_the_model_answers(reader):
    student = deit_jax.load_model("runs/student")
    pictures = ["three.png", Image.open("photo.jpg"), np.asarray(Image.open("photo.jpg"))]
    images = student.preprocess(pictures)
    # Pillow and a little arithmetic, instead of the house's own resizing.
    small = Image.open("three.png").convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    mean, std = (np.float32(x) for x in (student.preprocessing.mean, student.preprocessing.std))
    np.testing.assert_allclose(images[0], (np.asarray(small) / 255 - mean) / std, atol=1e-6)
    np.testing.assert_array_equal(images[1], images[2])
    first, second = student.model.head_logits(images)
    expected = {"class": first, "distillation": second, "fused": (first + second) / 2}
    predictions = student.predict(pictures, top=3, batch_size=2)
    assert [one.path for one in predictions] == ["three.png", "", ""]
    for row, one in enumerate(predictions):
        assert one.guesses == one.heads["fused"] and len(one.guesses) == 3
        for head, logits in expected.items():
            shares = np.asarray(jax.nn.softmax(logits[row]))
            found = one.heads[head]
            assert [guess.label for guess in found] == list(np.argsort(-shares)[:3])
            np.testing.assert_allclose([g.probability for g in found], np.sort(shares)[:-4:-1],
                                       rtol=1e-5)  # fmt: skip
            assert all(guess.name == student.class_names[guess.label] for guess in found)
    assert student.predict("three.png")[0].path == "three.png"


@pytest.mark.full
def test_a_frozen_teacher_answers_as_its_model(reader):
    teacher = deit_jax.load_model("runs/teacher")
    ask, params = teacher.freeze()
    images = teacher.preprocess(["three.png", "photo.jpg"])
    # Folding rounds otherwise.
    np.testing.assert_allclose(
        jax.jit(ask)(params, images), teacher.model(images), rtol=1e-4, atol=1e-5
    )


def test_class_names_and_preprocessing_go_with_the_weights(reader):
    student = deit_jax.load_model("runs/student")
    deit_jax.save_weights(student.model, "mine.safetensors", layout="timm")
    again = deit_jax.load_model("mine.safetensors")
    assert again.class_names == student.class_names == tuple("0123456789")
    assert again.preprocessing == student.preprocessing
    assert again.name == student.name


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_what_is_no_image_is_refused(reader, wrong):
    student = deit_jax.load_model("runs/student")
    with pytest.raises(ValueError, match=r"give RGB levels from 0 to 255, uint8"):
        student.preprocess([wrong])
    with pytest.raises((ValueError, OSError), match="nowhere"):
        student.predict("nowhere.png")
    with pytest.raises(FileNotFoundError, match="nothing"):
        deit_jax.load_model("runs/nothing")
