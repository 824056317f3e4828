import pytest

from benchmarks import augmentation

TINY = ["--batch-size", "4", "--size", "32", "--repeats", "2", "--memory-batch", "8"]


@pytest.mark.parametrize("recipe", ["light", pytest.param("deit", marks=pytest.mark.full)])
def test_page_tells_rates_and_memory(tmp_path, capsys, recipe):
    page = tmp_path / "page.md"
    assert augmentation.main(["--recipe", recipe, *TINY, "--markdown", str(page)]) == 0
    text = page.read_text()
    assert text in capsys.readouterr().out
    assert f"recipe {recipe}" in text and "| deit_jax, Pillow |" in text
    assert ("| timm, Pillow |" in text) == (recipe in augmentation.TIMM_POLICIES)
    assert "times the uint8 batch" in text


def test_unknown_recipe_is_named(capsys):
    with pytest.raises(SystemExit):
        augmentation.main(["--recipe", "deit4"])
    assert "Unknown recipe 'deit4'" in capsys.readouterr().err


def test_augmentation_is_compared_with_a_step_of_the_same_images(capsys):
    with pytest.raises(SystemExit):
        augmentation.main([*TINY, "--train-model", "deit_micro_patch4_16"])
    assert "trains on 16 pixels, --size is 32: pass --size 16." in capsys.readouterr().err


def test_a_missing_timm_is_said_before_anything_is_measured(capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("Comparing needs timm, which is not installed: pip install it.")

    monkeypatch.setattr(augmentation.importlib, "import_module", missing)
    with pytest.raises(SystemExit):
        augmentation.main(["--recipe", "deit", *TINY])
    assert "needs timm, which is not installed" in capsys.readouterr().err
