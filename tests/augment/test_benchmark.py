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
