"""Predictions, against torchvision's transforms and timm's model on the same files."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.transforms as T
from PIL import Image

import deit_jax
from deit_jax.augment.normalise import to_input
from deit_jax.cli.main import main
from deit_jax.config.defaults import default_config
from deit_jax.data.images.crop import evaluation_view
from deit_jax.data.images.decode import decode_and_tell
from deit_jax.evaluation.predict import likeliest, read_view
from deit_jax.models.functional import split
from deit_jax.preprocessing import EvalView
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import open_run
from tests.weights.small_models import timm_model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference_transform(size):
    """The evaluation transform of the reference implementation."""
    return T.Compose(
        [
            T.Resize(int(size / 0.875), interpolation=T.InterpolationMode.BICUBIC),
            T.CenterCrop(size),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )


def picture(seed, height, width, mode="RGB"):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8)))
    return image.resize((width, height), Image.Resampling.BILINEAR).convert(mode)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    picture(0, 40, 60).save(folder / "a.png")
    picture(1, 70, 32, "L").save(folder / "below" / "b.jpg")
    picture(2, 24, 24, "P").save(folder / "c.gif.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize(
    ("height", "width", "mode", "suffix"),
    [
        (375, 500, "RGB", ".jpg"),
        (500, 333, "RGB", ".png"),
        (256, 256, "L", ".jpg"),
        (301, 207, "CMYK", ".jpg"),
        (120, 90, "RGBA", ".png"),
        (1040, 131, "P", ".png"),
    ],
)
def test_images_are_prepared_bit_for_bit_as_in_the_reference(
    tmp_path, size, height, width, mode, suffix
):
    path = tmp_path / f"image{suffix}"
    picture(height, height, width, mode).save(path)
    ours = to_input(read_view(str(path), (size, size), EvalView())[None], MEAN, STD)[0]
    with Image.open(path) as image:
        theirs = reference_transform(size)(image.convert("RGB")).permute(1, 2, 0).numpy()
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


def weights(tmp_path, distilled):
    model = timm_model(distilled=distilled)
    if distilled:
        model.set_distilled_training(True)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    return model, str(tmp_path / "w.safetensors")


@pytest.mark.parametrize("distilled", [True, False])
def test_top_five_of_every_head_are_timms(tmp_path, photos, capsys, distilled):
    model, path = weights(tmp_path, distilled)
    command = ["predict", "--weights", path, str(photos), "--json", "--batch-size=2"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assumed"].startswith("Nothing in the file describes its network: taken for")
    files = [photos / "a.png", photos / "below" / "b.jpg", photos / "c.gif.png"]
    assert [image["file"] for image in found["images"]] == list(map(str, sorted(files)))
    for image in found["images"]:
        with Image.open(image["file"]) as opened:
            inputs = reference_transform(16)(opened.convert("RGB"))[None]
        model.train(distilled)
        with torch.no_grad():
            out = model(inputs)
        heads = {"class": out}
        if distilled:
            heads = {"fused": (out[0] + out[1]) / 2, "class": out[0], "distillation": out[1]}
        assert list(image["heads"]) == list(heads)
        for head, logits in heads.items():
            expected = logits[0].softmax(-1).sort(descending=True)
            guesses = image["heads"][head]
            assert [guess["label"] for guess in guesses] == expected.indices[:5].tolist()
            assert [guess["name"] for guess in guesses] == [
                f"class {label}" for label in expected.indices[:5].tolist()
            ]
            # Float32 logits of order 1 on both sides.
            np.testing.assert_allclose(
                [guess["probability"] for guess in guesses], expected.values[:5], rtol=2e-5
            )


def test_names_of_classes_and_the_table(tmp_path, photos, capsys):
    _, path = weights(tmp_path, True)
    names = [f"animal {letter}" for letter in "abcdefghij"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "names.json").write_text(json.dumps(dict(enumerate(names))))
    (tmp_path / "marked.json").write_text(json.dumps(names), encoding="utf-8-sig")
    command = ["predict", "--weights", path, str(photos / "a.png"), "--top", "2"]
    printed = []
    for file in ("names.txt", "names.json", "marked.json"):
        assert main([*command, "--classes", str(tmp_path / file)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert "| both heads" in printed[0] and "| distillation head" in printed[0]
    assert printed[0].count("| animal ") == 6
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "`predict --classes FILE` does" in said and "| class " in said
    # As transformers stores them beside its weights.
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    assert main(command) == 0
    assert capsys.readouterr().out == printed[0]


def test_a_run_knows_its_classes_wherever_its_data_has_gone(tmp_path, photos, capsys):
    config = default_config()
    config.data.source, config.data.directory = "folder", str(tmp_path / "gone")
    config.model.name, config.model.image_size = "deit_micro_patch4_16", (16, 16)
    config.model.num_classes = 3
    _, params, _ = split(deit_jax.create_model(config.model.name, num_classes=3))
    names = ["ant", "bee", "fly"]

    def save(run, kept, record=()):
        opened = open_run(run, config, class_names=record)
        with opened, Checkpoints(opened.checkpoints) as checkpoints:
            state = {"params": params, "batch_stats": {}, "ema": {}, "step": jnp.int32(1)}
            meta = {"seconds": 1.0} | ({"class_names": kept} if kept else {})
            checkpoints.save(1, state, meta=meta, metrics={"top1": 1.0})

    def said(weights):
        assert main(["predict", "--weights", str(weights), str(photos / "a.png"), "--json"]) == 0
        image = json.loads(capsys.readouterr().out)["images"][0]
        return sorted(guess["name"] for guess in image["heads"]["class"])

    save(tmp_path / "now", names)
    save(tmp_path / "record", (), names)
    save(tmp_path / "before", ())
    assert said(tmp_path / "now") == said(tmp_path / "record") == names
    assert said(tmp_path / "before") == ["class 0", "class 1", "class 2"]
    # A run from before names were kept has those of its data, where that still is.
    for name in names:
        (tmp_path / "gone" / "validation" / name).mkdir(parents=True)
        picture(0, 16, 16).save(tmp_path / "gone" / "validation" / name / "x.png")
    assert said(tmp_path / "before") == names
    # And on into other layouts.
    for layout in ("timm", "transformers"):
        out = tmp_path / layout
        assert main(["convert", str(tmp_path / "now"), str(out), "--layout", layout]) == 0
        capsys.readouterr()
        assert said(out) == names
    config = json.loads((tmp_path / "transformers" / "config.json").read_text())
    assert config["label2id"] == {"ant": 0, "bee": 1, "fly": 2}


def test_a_photograph_that_its_exif_tag_turns_is_said_to_be_read_as_it_lies(tmp_path, capsys):
    _, path = weights(tmp_path, False)
    tag = Image.Exif()
    answers = []
    for name, orientation in (("turned.jpg", 6), ("upright.jpg", 1)):
        tag[0x0112] = orientation
        picture(0, 40, 60).save(tmp_path / name, exif=tag)
        assert main(["predict", "--weights", path, str(tmp_path / name), "--json"]) == 0
        shown = capsys.readouterr()
        answers.append(json.loads(shown.out)["images"][0]["heads"])
        told = "turned.jpg: rotated by its EXIF tag, which is ignored as torchvision does."
        assert (told in shown.err) == (name == "turned.jpg")
    assert answers[0] == answers[1]


def test_damaged_images_are_named_and_skipped(tmp_path, photos, capsys, monkeypatch):
    _, path = weights(tmp_path, False)
    data = (photos / "a.png").read_bytes()
    (photos / "broken.png").write_bytes(data[: len(data) // 2])
    os.mkfifo(photos / "pipe.png")
    Image.fromarray(np.full((40, 40), 3000, np.uint16)).save(photos / "deep.png")
    Image.new("RGB", (20_000, 2)).save(photos / "thin.png")

    def decode(data):
        if data == (photos / "a.png").read_bytes():
            raise MemoryError
        return decode_and_tell(data)

    monkeypatch.setattr("deit_jax.evaluation.predict.decode_and_tell", decode)
    assert main(["predict", "--weights", path, str(photos)]) == 1
    shown = capsys.readouterr()
    # One that the system leaves out, and one that is left for lack of memory; all others go on.
    names = ("below/b.jpg", "c.gif.png", "deep.png", "thin.png")
    assert all(f"photos/{name}" in shown.out for name in names) and shown.out.count("photos/") == 4
    memory, broken, note = shown.err.splitlines()
    assert memory.startswith("skipped: ") and memory.endswith(
        "a.png: there is not enough memory for it."
    )
    assert broken.startswith("skipped: ") and "broken.png" in broken
    assert note.startswith("note: ") and "deep.png: 16-bit grey (I;16): values above 255" in note
    assert main(["predict", "--weights", path, str(photos), "--json"]) == 1
    images = json.loads(capsys.readouterr().out)["images"]
    assert ["error" in image for image in images] == [True, False, True, False, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.png"], "There is no file or folder no_such.png."),
        (["empty"], "There are no images"),
        (["a.png", "--classes", "two.txt"], "two.txt names 2 classes but the model has 10"),
        (["a.png", "--classes", "bad.json"], "bad.json is no list of class names"),
        (["a.png", "--classes", "a.png"], "a.png is no list of class names"),
        (["a.png", "--weights", "no_such.pth"], "no_such.pth"),
    ],
)
def test_bad_input_ends_with_a_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    _, path = weights(tmp_path, False)
    (tmp_path / "empty").mkdir()
    picture(0, 20, 20).save("a.png")
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "bad.json").write_text('{"0": "cat", "5": "dog"}')
    assert main(["predict", "--weights", path, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_equal_probabilities_are_in_order_of_class():
    guesses = likeliest(np.array([0.1, 0.4, 0.1, 0.4], np.float32), list("abcd"), 3)
    assert [guess.name for guess in guesses] == ["b", "d", "a"]


def test_views_are_those_of_evaluation(photos):
    with Image.open(photos / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(
        read_view(str(photos / "a.png"), (16, 12), EvalView.keeping(1.0)),
        evaluation_view(pixels, (16, 12), EvalView.keeping(1.0)),
    )
