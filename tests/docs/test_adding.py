"""The steps of docs/adding.md hold: its Python runs, and the files it names are there."""

import re
import textwrap

import pytest

from tests.docs.documented import ROOT

TEXT = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^( *)```python\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", [textwrap.dedent(code) for _, code in BLOCKS])
def test_its_python_runs(code):
    exec(compile(code, "docs/adding.md", "exec"), {"__name__": "adding"})


def test_the_files_it_names_are_there():
    named = set(re.findall(r"`((?:deit_jax|tests|docs)/[\w./-]+)`", TEXT))
    assert len(named) > 12
    assert not {name for name in named if not (ROOT / name).exists()}
