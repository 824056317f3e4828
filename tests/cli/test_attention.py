"""The command `attention`: which pictures of what, and what it refuses."""

import sys

import numpy as np
import pytest
import torchvision.transforms as T
from PIL import Image

import deit_jax
from deit_jax.cli.main import main
from tests.cli.test_predict import MEAN, STD, picture
from tests.evaluation.test_attention import EXACT, loaded, timm_maps
from tests.weights.small_models import DISTILLED, PLAIN, timm_model


@pytest.fixture
def drawn(monkeypatch):
    """What would have been drawn."""
    from deit_jax.reports import attention

    seen = []
    monkeypatch.setattr(attention, "draw_attention", lambda one, folder: seen.append(one) or ["x"])
    monkeypatch.setattr(attention, "draw_cosines", lambda *given: seen.append(given))
    return seen


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / "one" / "a.png", tmp_path / "two" / "a.png", tmp_path / "two" / "b.png"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        picture(seed, 40, 90).save(path)
    return [str(path) for path in paths]


def test_what_is_drawn_is_what_the_model_sees(tmp_path, photos, drawn, capsys):
    size = (12, 24)
    theirs = timm_model(distilled=True, image_size=size)
    weights = tmp_path / "w.safetensors"
    deit_jax.save_weights(loaded(DISTILLED, theirs, tmp_path, size), weights)
    out = tmp_path / "out"
    code = main(["attention", "--weights", str(weights), *photos, "--out", str(out)])
    printed = capsys.readouterr().out
    assert code == 0
    assert [f"{out / name} (x)" in printed for name in ("a", "a-2", "b")] == [True] * 3
    *seen, (cosines, layers, model, path) = drawn
    assert cosines.shape == (len(layers), 3) == (6, 3)
    assert (model, path) == (DISTILLED, out / "cosine.png")
    assert f"| block 2    |  {cosines[4].mean():.3f} |" in printed
    # Resized in proportion to cover 13x27 pixels, 1/0.875 of each side, and the middle cut out.
    shown = T.Compose([T.Resize((13, 29), T.InterpolationMode.BICUBIC), T.CenterCrop(size)])
    for path, one in zip(photos, seen, strict=True):
        pixels = shown(Image.open(path))
        np.testing.assert_array_equal(one.pixels, pixels)
        normal = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])(pixels)
        maps = timm_maps(theirs, normal.permute(1, 2, 0)[None].numpy())[:, 0]
        for token in range(2):
            patches = maps[:, :, token, 2:].reshape(3, 2, 3, 6)
            np.testing.assert_allclose(one.heads[token], patches, **EXACT)
        assert one.rollout.shape == (2, 3, 3, 6)


def test_without_a_distillation_token_there_is_no_cosine(tmp_path, photos, drawn, capsys):
    weights = tmp_path / "plain.safetensors"
    deit_jax.save_weights(deit_jax.create_model(PLAIN), weights)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cosine.png").write_bytes(b"of an earlier model")
    arguments = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--overwrite"]
    assert main(["attention", photos[0], str(tmp_path / "broken.png"), *arguments]) == 1
    captured = capsys.readouterr()
    assert "Cosine" not in captured.out and not (tmp_path / "out" / "cosine.png").exists()
    assert captured.err.startswith("skipped: ") and "broken.png" in captured.err
    (one,) = drawn
    assert len(one.heads) == 1


def test_what_is_refused(tmp_path, photos, drawn, capsys, monkeypatch):
    weights = tmp_path / "net.safetensors"
    deit_jax.save_weights(deit_jax.create_model("regnety_micro"), weights)
    arguments = ["attention", photos[0], "--weights", str(weights), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(
        "RegNet is a convnet, which has no attention to look at; give the weights of a vision "
        "transformer.\n"
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "a").mkdir(parents=True)
    assert main(arguments) == 2
    assert "out/a exists already; give another --output, or --overwrite." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(arguments) == 2
    assert "pip install 'deit_jax[demo]'" in capsys.readouterr().err
    assert drawn == []
