"""What the example beside a program shows it, and when there is none."""

import json
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deit_jax.data.images.crop import evaluation_view
from deit_jax.export.examples import example
from deit_jax.preprocessing import EvalView, Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def served(view, size):
    """As much of a program as the example asks for."""
    facts = SimpleNamespace(preprocessing=Preprocessing(view, MEAN, STD))
    return SimpleNamespace(
        subject=SimpleNamespace(weights=SimpleNamespace(facts=facts), size=size), preprocess=False
    )


@pytest.mark.parametrize("arithmetic", ["torchvision", "timm", "transformers"])
@pytest.mark.parametrize("fit", ["cover", "exact"])
def test_the_program_is_shown_what_evaluation_shows(tmp_path, monkeypatch, arithmetic, fit):
    # 27 pixels are resized to 31, so that a margin of 4 is even and one of 5 or 7 is not.
    view, size = EvalView.keeping(0.87, arithmetic=arithmetic, fit=fit), (27, 27)
    said = {
        "input": {"name": "images"},
        "class_names": [],
        "resize": view.sides(size),
        "crop": size,
        "preprocessing": Preprocessing(view, MEAN, STD).to_json(),
    }
    (tmp_path / "serving.json").write_text(json.dumps(said))
    (tmp_path / "serve.py").write_text(example(served(view, size), "onnx"))
    given = []

    def run(_, inputs):
        given.append(inputs["images"])
        return [np.zeros((1, 5), np.float32)]

    session = SimpleNamespace(InferenceSession=lambda path: SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "onnxruntime", session)
    rng = np.random.default_rng(0)
    for sides in ((31, 34), (31, 36), (38, 31), (35, 31), (90, 61)):
        pixels = rng.integers(0, 256, (*sides, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        monkeypatch.setattr(sys, "argv", ["serve.py", str(tmp_path / "photo.png")])
        runpy.run_path(str(tmp_path / "serve.py"))
        expected = (evaluation_view(pixels, size, view) / 255 - MEAN) / STD
        np.testing.assert_allclose(given.pop()[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (EvalView.keeping(0.9, fit="inside"), (32, 32)),
        (EvalView.keeping(1.2), (32, 32)),
        (EvalView.keeping(0.9, arithmetic="timm"), (32, 48)),
    ],
)
def test_there_is_none_where_it_would_be_long(view, size):
    assert example(served(view, size), "onnx") == ""
