"""Features that TensorFlow Datasets describes: what is read of them, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from deit_jax.cli.main import main
from deit_jax.data.open import open_source
from deit_jax.data.stream.read_or_replace import read_image
from tests.data.formats.tfds_formats import FORMATS, both, features, three
from tests.data.small_tfds import a_jpeg, jpeg


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return io.BytesIO(file.getvalue())


def floats(number):
    """A float image as TensorFlow Datasets stores it: its bytes as the channels of a PNG."""
    values = np.random.default_rng(number).random((8, 8), np.float32)
    return png(values.view(np.uint8).reshape(8, 8, 4))


def whole_numbers(number):
    return png(np.random.default_rng(number).integers(0, 2**16, (8, 8), np.uint16))


UNSUITABLE = {
    "Sequence(ClassLabel)": lambda: {
        "label": features.Sequence(three()),
        "content": lambda i: (io.BytesIO(jpeg(i)), [i % 3, 0]),
    },
    "Scalar": lambda: {"label": features.Scalar(dtype=np.int64)},
    "FeaturesDict": lambda: {
        "label": features.FeaturesDict({"a": three()}),
        "content": lambda i: (io.BytesIO(jpeg(i)), {"a": 0}),
    },
    "Sequence(Image(uint8))": lambda: {
        "label": three(),
        "image": features.Sequence(a_jpeg()),
        "content": lambda i: ([io.BytesIO(jpeg(i)), io.BytesIO(jpeg(0))], 0),
    },
    "Image(float32)": lambda: {
        "label": three(),
        # TensorFlow Datasets encodes them with TensorFlow: the description is changed below.
        "image": features.Image(shape=(8, 8, 4), encoding_format="png"),
        "content": lambda i: (floats(i), 0),
    },
    "Image(uint16)": lambda: {
        "label": three(),
        "image": features.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png"),
        "content": lambda i: (whole_numbers(i), 0),
    },
    "Tensor": lambda: {
        "label": three(),
        "image": features.Tensor(shape=(8, 8, 3), dtype=np.uint8),
        "content": lambda i: (np.zeros((8, 8, 3), np.uint8), 0),
    },
    "Text": lambda: {
        "label": three(),
        "image": features.Text(),
        "content": lambda i: ("words", 0),
    },
}


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_other_features_are_refused_by_name(tmp_path, kind, capsys):
    folder = both(tmp_path, **UNSUITABLE[kind]())
    which = "image" if "Image" in kind or kind in ("Tensor", "Text") else "label"
    needed = {"image": "Image of type uint8", "label": "ClassLabel"}[which]
    for name in FORMATS:
        path = folder / name / "tiny" / "1.0.0" / "features.json"
        if kind == "Image(float32)":
            path.write_text(path.read_text().replace('"uint8"', '"float32"'))
        message = f"The feature '{which}' in {path} must be one {needed}, but is {kind}."
        with pytest.raises(ValueError) as caught:
            open_source("tfds", "train", str(folder / name))
        assert str(caught.value) == message
        assert main(["prepare", str(folder / name), str(tmp_path / "out"), "--splits=train"]) == 2
        assert capsys.readouterr().err.endswith(f"error: {message}\n")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_grey_images_are_read_as_pillow_does(tmp_path, name):
    def grey(number):
        return np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)

    image = features.Image(shape=(8, 8, 1), encoding_format="png")
    folder = both(tmp_path, three(), image=image, content=lambda i: (png(grey(i)), i % 3))
    source = open_source("tfds", "train", str(folder / name))
    found = {read_image(source, i)[0].tobytes() for i in range(12)}
    assert found == {np.repeat(grey(i)[..., None], 3, -1).tobytes() for i in range(12)}
