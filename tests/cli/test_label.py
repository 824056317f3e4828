"""`python -m deit_jax label`: its mistakes; for what it computes see test_labelling.py."""

import pytest

from deit_jax.cli import label, main


def test_a_configuration_without_teacher_has_nothing_to_label(tmp_path, capsys):
    words = ["label", "--config=configs/digits.py:none", f"--out={tmp_path}"]
    assert main.main(words) == 2
    assert "has no teacher (config.distillation.kind is 'none')" in capsys.readouterr().err


def test_the_teacher_has_to_be_there(tmp_path, capsys):
    words = ["label", "--config=configs/digits.py:hard", f"--out={tmp_path / 'labels'}"]
    assert main.main([*words, "--config.teacher.weights=nowhere"]) == 2
    error = capsys.readouterr().err
    assert "'nowhere', which does not exist" in error and error.count("\n") == 1
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("text", ["3", "3:3", "4:3", "a:b", "1.2.3:4", "0:1e9"])
def test_a_stretch_of_epochs_rises(text, capsys):
    with pytest.raises(SystemExit):
        main.main(["label", "--config=x", "--out=y", f"--epochs={text}"])
    assert "is no stretch of epochs, such as 0:100" in capsys.readouterr().err
    assert label._stretch("0:2.5") == (0.0, 2.5)
