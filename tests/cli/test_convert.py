"""Weights translated from the command line."""

import numpy as np
import safetensors.numpy
import torch

import deit_jax
from deit_jax.cli.main import main
from tests.weights.small_models import DISTILLED, arrays, timm_model


def test_a_reference_checkpoint_becomes_files_of_all_layouts_and_returns(tmp_path, capsys):
    state = timm_model(distilled=True).state_dict()
    torch.save({"model": state}, tmp_path / "a.pth")
    source = tmp_path / "a.pth"
    for name, layout in (("h", "transformers"), ("t", "timm"), ("o.pth", "official")):
        assert main(["convert", str(source), str(tmp_path / name), "--layout", layout]) == 0
        source = tmp_path / name
    printed = capsys.readouterr().out
    assert printed.count(f"Read as {DISTILLED} for 10 classes at 16x16 pixels") == 3
    assert "| blocks.*" in printed and "36 arrays" in printed
    assert f"Written: {tmp_path / 'o.pth'} (official, their types unchanged" in printed
    back = torch.load(tmp_path / "o.pth")["model"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_another_type_and_what_is_there_already(tmp_path, capsys):
    safetensors.numpy.save_file(arrays(timm_model().state_dict()), tmp_path / "a.safetensors")
    command = ["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    assert main([*command, "--dtype", "float16"]) == 0
    written = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert {array.dtype for array in written.values()} == {np.dtype(np.float16)}
    capsys.readouterr()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_mistakes_end_with_a_sentence(tmp_path, capsys):
    state = timm_model(embed_dim=32).state_dict()
    torch.save(state, tmp_path / "narrow.pth")
    for source, message in (
        ("no_such.pth", "no_such.pth"),
        ("narrow.pth", "of sizes that no model here has"),
    ):
        assert main(["convert", str(tmp_path / source), str(tmp_path / "b.safetensors")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "b.safetensors").exists()


def test_public_names_load_and_save():
    from deit_jax import api

    assert deit_jax.load_weights is api.load_weights
    assert deit_jax.save_weights is api.save_weights
