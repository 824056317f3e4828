"""The comparison from the command line: exit codes, what is printed, the picture, bad input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from deit_jax.cli.main import main
from deit_jax.parity import compare
from deit_jax.weights import identify as guess
from tests.weights.description.described import timm_directory, transformers_directory
from tests.weights.small_models import (
    DISTILLED,
    PLAIN,
    randomised,
    timm_model,
    transformers_model,
)


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "picture.png"


@pytest.fixture
def undrawn(monkeypatch):
    """For tests that look at figures, and not at the picture of them."""
    monkeypatch.setattr("deit_jax.parity.picture.draw", lambda *_: None)


def run(picture, *arguments):
    return main(["compare", *map(str, arguments), f"--picture={picture}"])


def test_random_weights_agree_in_everything(picture, capsys):
    command = ("random:3", "--model", DISTILLED, "--step", "hard")
    assert run(picture, *command) == 0
    printed = capsys.readouterr().out
    assert "They agree; the largest differences are" in printed
    for layer in ("patch_embed", "tokens", "blocks.2.attn", "blocks.2.mlp", "norm", "head_dist"):
        # In the activations, the gradients and the parameters.
        assert printed.count(f"| {layer} ") == 3
    assert "blocks.1.norm1 " not in printed and "9 more are not shown" in printed
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 1000


def test_a_wrong_weight_is_found_and_named(picture, capsys, monkeypatch):
    build = compare.build_torch_side

    def mistaken(subject, against):
        other = build(subject, against)
        other.model.blocks[1].mlp.fc1.weight.data[3, 4] += 0.02
        return other

    monkeypatch.setattr(compare, "build_torch_side", mistaken)
    assert run(picture, "random:0", "--model", PLAIN, "--against", "official", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["agrees"]
    assert "the first layer to differ in the activations is blocks.1.mlp, by" in found["verdict"]
    (section,) = found["sections"]
    assert section["first_to_disagree"] == "blocks.1.mlp"
    disagree = [row["layer"] for row in section["layers"] if not row["agrees"]]
    assert disagree[0] == "blocks.1.mlp" and disagree[-1] == "logits"
    assert picture.stat().st_size > 10_000


def saved(tmp_path, kind):
    """A file of weights as the other project itself writes it, and what it is compared with."""
    if kind == "reference":
        torch.save({"model": timm_model(distilled=True).state_dict()}, tmp_path / "w.pth")
        return tmp_path / "w.pth", "official"
    if kind == "timm":
        state = {k: v.bfloat16() for k, v in timm_model().state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors", "timm"
    transformers_model("teacher").save_pretrained(tmp_path / "hub")
    return tmp_path / "hub", "transformers"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["reference", "timm", "transformers"])
def test_files_go_into_pytorch_as_they_are(tmp_path, picture, capsys, kind, monkeypatch):
    """So that a mistake in our own table of names would show, however consistent it is."""
    path, against = saved(tmp_path, kind)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)).save(photo)
    opened = []
    open_subject = compare.open_subject

    def keep(*arguments, **options):
        opened.append(open_subject(*arguments, **options))
        if mistaken:
            qkv = opened[-1].params["blocks"]["0"]["attn"]["qkv"]["kernel"]
            opened[-1].params["blocks"]["0"]["attn"]["qkv"]["kernel"] = np.roll(qkv, 64, axis=1)
        return opened[-1]

    monkeypatch.setattr(compare, "open_subject", keep)
    mistaken = False
    command = (path, "--against", against, "--image", photo, "--json")
    assert run(picture, *command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loaded"] == "the file itself"
    assert found["images"] == "photo.png at 16x16 pixels"
    # PyTorch's side is built on the same assumption, so agreement does not bear it out.
    assumed = "" if kind == "transformers" else "Nothing in the file describes its network"
    assert found["assumed"].startswith(assumed) and bool(found["assumed"]) == bool(assumed)
    mistaken = kind == "reference"
    if mistaken:
        assert run(picture, *command) == 1
        assert "is blocks.0.attn, by" in json.loads(capsys.readouterr().out)["verdict"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("against", ["timm", "transformers"])
def test_the_other_side_is_what_the_file_describes(tmp_path, picture, capsys, against, monkeypatch):
    """Read with other heads or another activation than the file says, it no longer agrees."""
    path = tmp_path / "hub"
    if against == "timm":
        timm_directory(path, num_heads=4)
    else:
        transformers_directory(path, num_attention_heads=4, layer_norm_eps=1e-3)
    command = (path, "--json", "--against")
    assert run(picture, *command, against) == 0
    assert json.loads(capsys.readouterr().out)["loaded"] == "the file itself"
    # Built in other words, it is the same network.
    assert run(picture, *command, "official") == 0

    def misread(heads, epsilon):
        for name, value in (
            ("check_timm_transformer", None),
            ("check_transformers", (heads, epsilon)),
            ("check_heads", heads),
        ):
            monkeypatch.setattr(guess, name, lambda *_, value=value: value)

    misread(2, 1e-6)
    assert run(picture, *command, against) == 1
    capsys.readouterr()
    config = json.loads((path / "config.json").read_text())
    config.get("model_args", config)[{"timm": "act_layer"}.get(against, "hidden_act")] = "relu"
    (path / "config.json").write_text(json.dumps(config))
    misread(4, 1e-3)
    assert run(picture, *command, against) == 1
    assert "is blocks.0.mlp, by" in json.loads(capsys.readouterr().out)["verdict"]


def test_a_file_of_parameters_goes_into_pytorch(tmp_path):
    """Of `dict(model.named_parameters())`, which want gradients."""
    theirs = timm_model()
    torch.save(dict(theirs.named_parameters()), tmp_path / "a.pth")
    subject = compare.open_subject(str(tmp_path / "a.pth"))
    other = compare.build_torch_side(subject, "timm")
    assert other.loaded_from == "the file itself"
    assert torch.equal(other.model.head.weight, theirs.head.weight)


def test_files_with_batch_normalisation_go_into_pytorch(tmp_path):
    """All tensors of the file, the counters of batches among them."""
    theirs = timm.create_model("efficientnet_b0", num_classes=3)
    torch.save({"model": prefixed(theirs.state_dict())}, tmp_path / "a.pth")
    subject = compare.open_subject(str(tmp_path / "a.pth"), model="efficientnet_b0")
    other = compare.build_torch_side(subject, "timm")
    assert other.loaded_from == "the file itself"
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])


def prefixed(state):
    return {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}


@pytest.mark.full
@pytest.mark.parametrize("name", ["regnety_040", "resnet50"])
def test_files_of_convnets_agree(tmp_path, picture, name):
    theirs = randomised(timm.create_model(name, num_classes=10))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    assert run(picture, tmp_path / "a.pth") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.pth"], "no_such.pth"),
        (["random:x"], "'random:x' has no seed; write for instance random:0."),
        (["random:0", "--model", "deit_tiny"], "There is no model named 'deit_tiny'"),
        (["random:0", "--image", "no_such.png"], "no_such.png: No such file or directory."),
        (["random:0", "--image", __file__], "cannot be decoded as an image"),
        (["random:0", "--model", "regnety_micro"], "has no model regnety_micro"),
        (
            ["random:0", "--model", "regnety_micro", "--against", "transformers"],
            "is a convnet, which transformers does not have; compare it with timm.",
        ),
        (
            ["random:0", "--model", "regnety_040", "--gradients"],
            "Gradients of regnety_040 are not compared: that of ReLU jumps at zero",
        ),
        (["random:0", "--picture", "no/such/directory/x.png"], "There is no directory no/such"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize("value", ["0", "-1e-5", "nan", "small"])
def test_tolerances_that_make_no_sense(value, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["compare", "random:0", f"--tolerance={value}"])
    assert exit_info.value.code == 2
    assert f"'{value}' is no positive number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "against"),
    [("torch", "official"), ("timm", "timm"), ("transformers", "transformers")],
)
def test_a_missing_package_is_named_with_the_extra(package, against, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["compare", "random:0", "--against", against]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: Comparing needs {package}, which is not installed: "
        "pip install 'deit_jax[compare]'.\n"
    )
