"""The tutorial's photographs are made and divided as the page says; its commands are run elsewhere.

tests/docs/test_execution.py types them, at reduced size.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from deit_jax.cli.main import main
from deit_jax.data.open import open_source

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()


def test_pieces_of_photographs_are_divided_by_rows(tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "tutorial", "exec"), {})
    (words,) = re.findall(r"deit-jax (split photographs --output data/own --together)", PAGE)
    assert main(words.split()) == 0
    assert "6 classes, 368 in train, 104 in val" in capsys.readouterr().out
    train, val = (open_source("folder", split, "data/own") for split in ("train", "val"))
    assert f"{len(val)} of {len(train) + len(val)} images" in PAGE
    assert train.class_names == ("brick", "coins", "grass", "gravel", "moon", "page")
    assert Counter(val.labels.tolist())[0] == 20
    # No row is on both sides.
    rows = [{Path(s.path(n)).parent for n in range(len(s))} for s in (train, val)]
    assert rows[0] and not rows[0] & rows[1]
