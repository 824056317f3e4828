"""What is exported, read by others: in processes without this project, by timm and transformers."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
import torchvision.transforms as T
import transformers
from PIL import Image

import deit_jax
from deit_jax.cli.main import main
from deit_jax.config.defaults import default_config
from deit_jax.export import programs
from deit_jax.export.onnx_rules import TRANSLATIONS
from deit_jax.models.functional import split
from deit_jax.preprocessing import EvalView, Preprocessing
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import open_run
from tests.cli.test_predict import picture
from tests.weights.small_models import DISTILLED, images, timm_model, torch_logits

pytest.importorskip("flatbuffers")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

NAMES = [f"kind {number}, of ten" for number in range(10)]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PREPARED = Preprocessing(EvalView.keeping(0.8), MEAN, STD, assumed=())
# Runs what it is given where nothing of this project can be imported.
ALONE = "import sys, runpy; sys.modules['deit_jax'] = None\n"
LOGITS = """
import numpy as np, onnxruntime
from jax import export
folder, batches = sys.argv[1], np.load(sys.argv[2])
program = export.deserialize(bytearray(open(f"{folder}/stablehlo/model.stablehlo", "rb").read()))
assert program.platforms == ("cpu", "cuda", "tpu")
session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")
found = {}
for name, batch in batches.items():
    found["stablehlo" + name] = program.call(batch)
    found["onnx" + name] = session.run(["logits"], {"images": batch})[0]
np.savez(sys.argv[3], **found)
"""
SERVE = """
for script in sys.argv[2:]:
    sys.argv = [script, sys.argv[1]]
    print("==", script)
    runpy.run_path(script, run_name="__main__")
"""


def alone(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def theirs():
    return timm_model(distilled=True)


@pytest.fixture(scope="module")
def exported(theirs, tmp_path_factory):
    """A folder with the same weights in every format."""
    root = tmp_path_factory.mktemp("exported")
    torch.save(theirs.state_dict(), root / "theirs.pth")
    model = deit_jax.create_model(DISTILLED, weights=root / "theirs.pth")
    weights = root / "w.safetensors"
    deit_jax.save_weights(model, weights, class_names=NAMES, preprocessing=PREPARED)
    for name in ("stablehlo", "onnx", "timm", "transformers"):
        assert main(["export", str(weights), str(root / name), "--format", name]) == 0
    for name in ("stablehlo", "onnx"):
        inside = ["--format", name, "--preprocess"]
        assert main(["export", str(weights), str(root / f"{name}_inside"), *inside]) == 0
    assert not [path for path in root.iterdir() if path.name.startswith(".")]
    return root


@pytest.fixture(scope="module")
def photograph(exported):
    """Its margins are even, so that all who cut the middle out agree."""
    path = exported / "photo.png"
    picture(0, 80, 100).save(path)
    return path


def likeliest(theirs, photograph):
    """Names and probabilities by timm's model and torchvision's transforms."""
    steps = [T.Resize(20, T.InterpolationMode.BICUBIC), T.CenterCrop(16), T.ToTensor()]
    pixels = T.Compose([*steps, T.Normalize(MEAN, STD)])(Image.open(photograph))
    with torch.no_grad():
        shares = theirs(pixels[None])[0].softmax(0)
    values, order = shares.topk(5)
    return [NAMES[index] for index in order], values.numpy()


def test_programs_give_timms_logits_in_a_process_of_their_own(theirs, exported, tmp_path):
    batches = {str(count): images(batch=count) for count in (1, 7)}
    np.savez(tmp_path / "in.npz", **batches)
    alone(LOGITS, exported, tmp_path / "in.npz", tmp_path / "out.npz")
    found = np.load(tmp_path / "out.npz")
    for name, batch in batches.items():
        for program in ("stablehlo", "onnx"):
            expected = torch_logits(theirs, batch)
            np.testing.assert_allclose(found[program + name], expected, rtol=0, atol=1e-5)


def test_examples_serve_a_photograph(theirs, exported, photograph):
    folders = ["stablehlo", "stablehlo_inside", "onnx", "onnx_inside"]
    printed = alone(SERVE, photograph, *(exported / name / "serve.py" for name in folders))
    names, values = likeliest(theirs, photograph)
    parts = printed.split("== ")[1:]
    assert len(parts) == 4
    for part in parts:
        lines = [line.strip().split(" %  ") for line in part.splitlines()[1:]]
        assert [name for _, name in lines] == names
        np.testing.assert_allclose([float(share) for share, _ in lines], 100 * values, atol=0.01)
    assert len((exported / "onnx_inside" / "serve.py").read_text().splitlines()) < 16


def test_names_and_preprocessing_come_along(exported):
    for folder, inside in (("stablehlo", False), ("onnx", False), ("onnx_inside", True)):
        said = json.loads((exported / folder / "serving.json").read_text())
        assert said["class_names"] == NAMES
        assert (said["resize"], said["crop"]) == ([20, 20], [16, 16])
        shown = said["preprocessing"]
        assert (shown["mean"], shown["std"], shown["inside"]) == ([*MEAN], [*STD], inside)
    session = onnxruntime.InferenceSession(exported / "onnx" / "model.onnx")
    inside = session.get_modelmeta().custom_metadata_map
    assert json.loads(inside["class_names"]) == NAMES
    assert json.loads(inside["preprocessing"])["mean"] == [*MEAN]
    for folder in ("timm", "transformers"):
        again = deit_jax.load_model(exported / folder)
        assert [*again.class_names] == NAMES
        assert again.preprocessing.view.sides((16, 16)) == (20, 20)
        np.testing.assert_allclose(again.preprocessing.mean, MEAN)


def test_timm_builds_it(theirs, exported):
    name = f"local-dir:{exported / 'timm'}"
    model = timm.create_model(name, pretrained=True).eval()
    np.testing.assert_array_equal(torch_logits(model, images()), torch_logits(theirs, images()))
    wanted = timm.data.resolve_model_data_config(model)
    assert (wanted["crop_pct"], wanted["mean"], wanted["std"]) == (0.8, [*MEAN], [*STD])


def test_transformers_pipeline_names_classes(theirs, exported, photograph):
    classify = transformers.pipeline("image-classification", str(exported / "transformers"))
    found = classify(str(photograph), top_k=5)
    names, values = likeliest(theirs, photograph)
    assert [one["label"] for one in found] == names
    np.testing.assert_allclose([one["score"] for one in found], values, atol=1e-5)


def test_the_card_says_what_a_run_was(tmp_path):
    config = default_config()
    config.model.update(name="deit_micro_patch4_16", image_size=(16, 16), num_classes=3)
    config.distillation.kind = "none"
    _, params, _ = split(deit_jax.create_model("deit_micro_patch4_16", num_classes=3))
    opened = open_run(tmp_path / "run", config, class_names=["ant", "bee", "fly"])
    with opened, Checkpoints(opened.checkpoints) as checkpoints:
        state = {
            "params": params,
            "batch_stats": {},
            "ema": {"params": params, "batch_stats": {}},
            "step": jnp.int32(7),
        }
        checkpoints.save(7, state, meta={"seconds": 1.0}, metrics={"top1": 1.0})
    rows = [
        {"step": 7, "split": "eval", "raw/class/top1": 61.25, "raw/class/loss": 1.5},
        {"step": 9, "split": "eval", "raw/class/top1": 99.0, "raw/class/loss": 1.0},
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    out = tmp_path / "new" / "out"
    assert main(["export", str(tmp_path / "run"), str(out), "--format", "transformers"]) == 0
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-classification\n")
    assert "| class head |     61.25 | 1.5000 |" in card and "99.0" not in card
    assert f"| `training.batch_size`         | {config.training.batch_size} " in card
    assert "Taught by" not in card
    # Nothing was measured of the moving average.
    options = ["--format", "timm", "--which", "ema"]
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "ema"), *options]) == 0
    assert "(step 7) were not evaluated" in (tmp_path / "ema" / "README.md").read_text()


def test_what_is_refused(exported, tmp_path, capsys, monkeypatch):
    weights, out = str(exported / "w.safetensors"), tmp_path / "out"

    def refused(*arguments, weights=weights, out=out):
        capsys.readouterr()
        assert main(["export", weights, str(out), "--format", *arguments]) == 2
        assert not list(tmp_path.glob(".*")), "something was left"
        return capsys.readouterr().err

    assert "timm exists already; name a directory that does not" in refused(
        "onnx", out=exported / "timm"
    )
    assert "leave --preprocess out" in refused("timm", "--preprocess")
    (tmp_path / "cut.safetensors").write_bytes((exported / "w.safetensors").read_bytes()[:-9])
    assert "cut.safetensors" in refused("timm", weights=str(tmp_path / "cut.safetensors"))
    # A translation that computes something else is found before anybody can use it.
    monkeypatch.setitem(TRANSLATIONS, "sub", TRANSLATIONS["add"])
    monkeypatch.setitem(TRANSLATIONS, "erf", lambda graph, operands, equation: operands[0])
    assert "differs from the model by" in refused("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'deit_jax[onnx]'" in refused("onnx")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert "pip install 'deit_jax[export]'" in refused("stablehlo")
    assert not out.exists() and programs.PLATFORMS
