"""What is said of an optional package that is missing, or does not work."""

import sys

import pytest

from deit_jax.extras import require


@pytest.mark.parametrize("package", ["nosuchpackage", "nosuchpackage.inner"])
def test_a_missing_package_is_named_with_its_extra(package):
    with pytest.raises(ModuleNotFoundError) as error:
        require(package, "onnx", "Quantising")
    assert str(error.value) == (
        "Quantising needs nosuchpackage, which is not installed: pip install 'deit_jax[onnx]'."
    )


def test_a_package_that_misses_another_is_not_said_to_be_missing(tmp_path, monkeypatch):
    (tmp_path / "halfinstalled.py").write_text("import nosuchpackage\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="halfinstalled is installed but cannot be"):
        require("halfinstalled", "onnx")
    assert "halfinstalled" not in sys.modules
