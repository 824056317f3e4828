"""The oracle: the restored model, called on all images at once, and counting in numpy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import deit_jax
from deit_jax.cli.main import main
from deit_jax.config.defaults import default_config
from deit_jax.data.open import open_source
from deit_jax.models.functional import split
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import open_run
from deit_jax.runs.log import RunLog

pytestmark = pytest.mark.slow

MODEL = "deit_micro_distilled_patch4_16"
LOGGED = 12.5


def _model(seed, **options):
    model = deit_jax.create_model(MODEL, seed=seed, **options)
    # Fresh heads answer nearly alike; these do not.
    keys = iter(jax.random.split(jax.random.key(seed), 2))
    for head in (model.head, model.head_dist):
        head.kernel[...] = jax.random.normal(next(keys), head.kernel.shape)
    return model


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = default_config()
    config.data.source, config.data.eval_split = "digits", "test"
    config.data.eval_crop_ratio = 1.0
    config.model.name, config.model.num_classes, config.model.image_size = MODEL, 10, (16, 16)
    config.model.dtype = "float32"
    config.distillation.kind = "hard"
    config.teacher.weights = "a/teacher/that/is/gone"
    # Not a multiple of the devices, nor a divisor of the images.
    config.evaluation.batch_size = 301
    path = tmp_path_factory.mktemp("runs") / "run"
    (_, raw, _), (_, ema, _) = split(_model(0)), split(_model(1))
    state = {"params": raw, "batch_stats": {}, "ema": {"params": ema, "batch_stats": {}}}
    state["step"] = jnp.int32(7)
    with open_run(path, config) as run, Checkpoints(run.checkpoints) as checkpoints:
        with RunLog(run.path, resume_step=0, tensorboard=False) as log:
            heads = {f"raw/{head}/top1": LOGGED for head in ("class", "distillation", "fused")}
            log.write(7, "eval", {"epoch": 1.0, **heads})
        checkpoints.save(7, state, meta={"seconds": 1.0}, metrics={"top1": LOGGED})
    return path


def _logits(seed):
    """Both heads' logits of all test images."""
    return _ask(_model(seed), open_source("digits", "test").images)


def _ask(model, pixels):
    images = (pixels.astype(np.float64) / 255 - default_config().augment.mean) / (
        np.array(default_config().augment.std)
    )
    heads = nnx.jit(lambda m, x: m.head_logits(x))(model, jnp.asarray(images, jnp.float32))
    return [np.asarray(logits, np.float64) for logits in heads]


def _expected(seed, fuse):
    source = open_source("digits", "test")
    first, second = _logits(seed)
    return {
        name: _count(logits, source.labels)
        for name, logits in {
            "class": first,
            "distillation": second,
            "fused": fuse(first, second),
        }.items()
    }


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _count(logits, labels):
    order = np.argsort(-logits, axis=-1, kind="stable")
    own = _softmax(logits)[np.arange(len(labels)), labels]
    return {
        "top1": 100 * np.mean(order[:, 0] == labels),
        "top5": 100 * np.mean((order[:, :5] == labels[:, None]).any(-1)),
        "loss": -np.mean(np.log(own)),
    }


def _evaluate(capsys, workdir, *options):
    assert main(["evaluate", str(workdir), *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "seed", "fuse"),
    [
        ([], 0, lambda a, b: (a + b) / 2),
        (
            ["--weights=ema", "--fusion=sum_softmax", "--checkpoint=7"],
            1,
            lambda a, b: np.log(_softmax(a) + _softmax(b)),
        ),
    ],
)
def test_all_heads_are_measured_exactly(workdir, capsys, options, seed, fuse):
    found = _evaluate(capsys, workdir, *options)
    assert (found["step"], found["images"], found["split"]) == (7, 800, "test")
    expected = _expected(seed, fuse)
    assert list(found["evaluation"]) == list(expected)
    for head, metrics in expected.items():
        measured = found["evaluation"][head]
        assert (measured["top1"], measured["top5"]) == (metrics["top1"], metrics["top5"])
        # Sums of 800 float32 losses in two orders.
        assert measured["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    losses = [metrics["loss"] for metrics in found["evaluation"].values()]
    assert min(np.diff(sorted(losses))) > 1e-3, "the heads must differ for this to mean anything"


def test_runs_and_weights_beside_each_other(workdir, tmp_path, capsys):
    """Weights from a file, ReaL labels and the table of disagreement, on all devices."""
    deit_jax.save_weights(_model(1), tmp_path / "other.safetensors")
    source = open_source("digits", "test")
    rng = np.random.default_rng(0)
    real = [sorted({int(label), *rng.integers(0, 10, 2).tolist()}) for label in source.labels]
    real[5] = []
    (tmp_path / "real.json").write_text(json.dumps(real))
    arguments = [str(workdir), str(tmp_path / "other.safetensors"), "--disagreement", "--json"]
    # Of a run, normalisation and crop; of the file, ImageNet's, which the run has as well.
    arguments += [f"--output={tmp_path / 'out'}", f"--real={tmp_path / 'real.json'}"]
    assert main(["evaluate", *arguments, "--crop-ratio=1"]) == 0
    *models, table = map(json.loads, capsys.readouterr().out.splitlines())
    answers = {"labels": source.labels}
    for seed, name, found in zip((0, 1), ("run", "other"), models, strict=True):
        first, second = _logits(seed)
        heads = {"class": first, "distillation": second, "fused": (first + second) / 2}
        for head, title in zip(
            heads, ("class head", "distillation head", "both heads"), strict=True
        ):
            answers[f"{name}, {title}"] = guess = heads[head].argmax(-1)
            assert found["evaluation"][head]["top1"] == 100 * np.mean(guess == source.labels)
            hits = [answer in labels for answer, labels in zip(guess, real, strict=True) if labels]
            assert found["evaluation"][head]["real"] == pytest.approx(100 * np.mean(hits))
            assert found["real_images"] == len(hits) == 799
    assert models[0]["step"] == 7 and models[1]["file"].endswith("other.safetensors")
    table = table["disagreement"]
    assert table["names"] == list(answers) and table["images"] == 800
    expected = [[np.mean(a != b) for b in answers.values()] for a in answers.values()]
    np.testing.assert_array_equal(table["fractions"], expected)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"agreement.md", "agreement.png"}


def test_imagenet_v2_is_measured_with_its_classes_in_the_order_of_numbers(tmp_path, capsys):
    """Twelve classes, of which 10 and 11 come before 2 in the order of names."""
    model = _model(2, num_classes=12)
    deit_jax.save_weights(model, tmp_path / "w.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    first, second = _ask(model, pixels)
    heads = {"class": first, "distillation": second, "fused": (first + second) / 2}
    # Two of three images lie where both heads together say, so that most answers are right; the
    # others see to it that no class is empty.
    said = heads["fused"].argmax(-1)
    folders = [int(said[i]) if i % 3 else i // 3 % 12 for i in range(64)]
    for i, number in enumerate(folders):
        folder = tmp_path / "imagenetv2-matched-frequency-format-val" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(folder / f"{i}.png")
    names = sorted(map(str, range(12)))
    found = {}
    for source, order in (("numbered_folder", range(12)), ("folder", [int(n) for n in names])):
        labels = np.array([order.index(number) for number in folders])
        options = [f"--source={source}", f"--directory={tmp_path}", "--crop-ratio=1"]
        options += ["--split=imagenetv2-matched-frequency-format-val"]
        measured = _evaluate(capsys, tmp_path / "w.safetensors", *options)
        assert measured["images"] == 64
        for head, logits in heads.items():
            expected = _count(logits, labels)
            values = found[source, head] = measured["evaluation"][head]
            assert (values["top1"], values["top5"]) == (expected["top1"], expected["top5"])
    assert names[2] == "10"
    assert found["numbered_folder", "fused"]["top1"] > 66 > found["folder", "fused"]["top1"] + 20


def test_classes_are_compared_by_their_names(tmp_path, capsys):
    """Three classes in folders, and models that have them in another order, or have others."""
    model = _model(3, num_classes=3)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    first, second = _ask(model, pixels)
    fused = (first + second) / 2
    # The model's classes are dog, cat, cow; those of folders are in the order of names.
    names, data = ("dog", "cat", "cow"), ("cat", "cow", "dog")
    for i, said in enumerate(fused.argmax(-1)):
        folder = tmp_path / "val" / (names[said] if i else data[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(folder / f"{i}.png")
    for name in data:
        (tmp_path / "val" / name).mkdir(exist_ok=True)
        Image.fromarray(pixels[0]).save(tmp_path / "val" / name / "more.png")
    source = open_source("folder", "val", str(tmp_path))
    order = [names.index(name) for name in data]
    images = np.stack([np.asarray(Image.open(source[i].name)) for i in range(len(source))])
    first, second = _ask(model, images)
    expected = _count(((first + second) / 2)[:, order], source.labels)
    place = ["--source=folder", f"--directory={tmp_path}", "--split=val", "--crop-ratio=1"]

    deit_jax.save_weights(model, tmp_path / "named", class_names=names)
    found = _evaluate(capsys, tmp_path / "named", *place)
    assert found["evaluation"]["fused"]["top1"] == expected["top1"] > 70
    assert any("another order" in note for note in found["notes"])
    deit_jax.save_weights(model, tmp_path / "nameless.safetensors")
    found = _evaluate(capsys, tmp_path / "nameless.safetensors", *place)
    assert any("only the number of classes" in note for note in found["notes"])
    deit_jax.save_weights(model, tmp_path / "other", class_names=("ant", "bee", "fly"))
    assert main(["evaluate", str(tmp_path / "other"), *place]) == 2
    assert "'ant' is in only one of them" in capsys.readouterr().err
    (tmp_path / "map.json").write_text(json.dumps({"cat": "bee", "cow": 2, "dog": "ant"}))
    found = _evaluate(capsys, tmp_path / "other", *place, f"--class-map={tmp_path / 'map.json'}")
    assert found["evaluation"]["fused"]["top1"] == expected["top1"]


def test_other_splits(workdir, capsys):
    assert _evaluate(capsys, workdir, "--split=train")["images"] == 597


def test_the_table_shows_what_the_run_logged(workdir, capsys):
    assert main(["evaluate", str(workdir), "--checkpoint=latest"]) == 0
    printed = capsys.readouterr().out
    assert "step 7, raw weights, on 800 images of split 'test'" in printed
    assert "| both (mean_logits) |" in printed
    assert "top-1 logged (%)" in printed and printed.count(f"{LOGGED:.3f}") == 3
    # Of other crops, or of heads put together otherwise, the run has measured nothing.
    for other in ("--crop-ratio=0.9", "--fusion=sum_softmax", "--split=train"):
        assert main(["evaluate", str(workdir), other]) == 0
        assert "logged" not in capsys.readouterr().out.lower()


def test_json_has_null_for_what_is_no_number(tmp_path, capsys):
    model = deit_jax.create_model("deit_micro_patch4_16")
    model.head.bias[...] = jnp.full(10, jnp.nan)
    path = tmp_path / "broken.safetensors"
    deit_jax.save_weights(model, path)
    assert main(["evaluate", str(path), "--source=digits", "--split=test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["evaluation"]["class"] == {"top1": 0.0, "top5": 0.0, "loss": None}
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert main(["predict", "--weights", str(path), str(tmp_path / "a.png"), "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["images"]
    assert {guess["probability"] for guess in image["heads"]["class"]} == {None}


def test_a_model_called_labels_does_not_take_the_place_of_the_labels(workdir, tmp_path, capsys):
    path = tmp_path / "labels.safetensors"
    deit_jax.save_weights(deit_jax.create_model("deit_micro_patch4_16"), path)
    assert main(["evaluate", str(workdir), str(path), "--disagreement", "--json"]) == 0
    names = json.loads(capsys.readouterr().out.splitlines()[-1])["disagreement"]["names"]
    assert names[0] == "labels" and names[-1] == str(path) and len(names) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint=8"], "no checkpoint 8"),
        (["--split=val"], "no split 'val'"),
        (["--output=out"], "--disagreement"),
        (["--real=no.json"], "No file 'no.json'"),
    ],
)
def test_mistakes(workdir, capsys, options, words):
    assert main(["evaluate", str(workdir), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_weights_do_not_say_what_images_to_evaluate(tmp_path, capsys):
    deit_jax.save_weights(_model(1), tmp_path / "other.safetensors")
    assert main(["evaluate", str(tmp_path / "other.safetensors")]) == 2
    assert "give --source, --directory and --split" in capsys.readouterr().err
