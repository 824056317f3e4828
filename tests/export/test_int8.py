"""The file in 8 bits and what is said of it, asked again through ONNX Runtime and torchvision."""

import json

import numpy as np
import pytest
import torchvision.transforms as T
from PIL import Image

import deit_jax
from deit_jax.cli.main import main
from deit_jax.preprocessing import EvalView, Preprocessing
from tests.cli.test_predict import picture
from tests.weights.small_models import DISTILLED

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NAMES = ["ant", "bee", "cat"]
COUNT = 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a transformer whose answers differ from image to image."""
    model = deit_jax.create_model(DISTILLED, num_classes=3, seed=1)
    for head in (model.head, model.head_dist):
        kernel = np.random.default_rng(0).normal(size=head.kernel.shape)
        head.kernel.set_value(kernel.astype(np.float32))
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    shown = Preprocessing(EvalView.keeping(0.8), MEAN, STD, assumed=())
    deit_jax.save_weights(model, path, class_names=NAMES, preprocessing=shown)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of classes, with a file that is no image among them."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(COUNT):
        path = root / "val" / NAMES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, 80, 100).save(path)
    (root / "val" / "cat" / "z.png").write_bytes(b"no image")
    return root


def test_what_is_said_of_8_bits_is_what_the_files_answer(weights, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--format", "onnx", "--int8", "--directory", str(photographs), "--split", "val"]
    assert main(["export", str(weights), str(out), *flags]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    steps = [T.Resize(20, T.InterpolationMode.BICUBIC), T.CenterCrop(16), T.ToTensor()]
    prepare = T.Compose([*steps, T.Normalize(MEAN, STD)])
    files = sorted((photographs / "val").rglob("[0-9].png"))
    batch = np.stack([prepare(Image.open(path)).permute(1, 2, 0).numpy() for path in files])
    labels = [NAMES.index(path.parent.name) for path in files]
    logits = [
        onnxruntime.InferenceSession(out / name).run(None, {"images": batch})[0]
        for name in ("model.onnx", "model-int8.onnx")
    ]
    wide, narrow = (values.argmax(-1) for values in logits)
    assert len(set(wide)) > 1, "the images tell nothing apart"
    # One of 127 levels of the largest weight and value of each of some thirty products.
    assert 0 < np.abs(logits[1] - logits[0]).max() < 0.1 * np.abs(logits[0]).max()
    loss = json.loads((out / "serving.json").read_text())["int8"]["loss"]
    assert loss["images"] == COUNT
    assert loss["top1"] == pytest.approx(100 * np.mean(wide == labels))
    assert loss["top1_int8"] == pytest.approx(100 * np.mean(narrow == labels))
    assert loss["alike"] == pytest.approx(100 * np.mean(wide == narrow))
    assert f"of {COUNT} images {loss['alike']:.2f} % are answered alike" in printed
    assert "model-int8.onnx" in (out / "README.md").read_text()


def test_without_images_the_loss_is_not_claimed(weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(weights), str(out), "--format", "onnx", "--int8"]) == 0
    assert "what it costs was not measured" in " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "serving.json").read_text())["int8"]["loss"] is None


def test_int8_that_cannot_be_is_refused(weights, photographs, tmp_path, capsys):
    model = deit_jax.create_model("regnety_micro", num_classes=3)
    deit_jax.save_weights(model, tmp_path / "convnet.safetensors")

    def refused(*arguments, of=weights):
        assert main(["export", str(of), str(tmp_path / "out"), *arguments]) == 2
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
        return capsys.readouterr().err

    assert "would not be faster" in refused(
        "--format", "onnx", "--int8", of=tmp_path / "convnet.safetensors"
    )
    assert "--int8 is for the format onnx, not timm" in refused("--format", "timm", "--int8")
    assert "images on which --int8 is measured" in refused("--format", "onnx", "--split", "val")
    elsewhere = ["--directory", str(photographs), "--split", "test"]
    assert "expected images in DIRECTORY" in refused("--format", "onnx", "--int8", *elsewhere)
