import subprocess
import sys
from pathlib import Path

import pytest

from deit_jax.config import families
from deit_jax.config.command_line import expand_config

ROOT = Path(__file__).parents[2]
OWN = "from configs.digits import get_config\n"


def test_a_file_that_lies_here_comes_before_one_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = f"{ROOT}/configs/deit.py:small"
    for given in ("deit.py:small", "configs/deit.py:small", ours):
        assert families.find_config_file(given) == ours
    Path("deit.py").write_text(OWN)
    assert families.find_config_file("deit.py:small") == "deit.py:small"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert families.find_config_file("~/deit.py") == f"{tmp_path}/deit.py"
    for nowhere in ("configs/digit.py:x", "", ":x", "/deit.py"):
        assert families.find_config_file(nowhere) == nowhere


def test_the_flag_in_one_word_and_in_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = f"{ROOT}/configs/deit.py:small"
    words = ["train", "--config", "deit.py:small", "-config=deit.py:small", "--workdir=deit.py"]
    expected = ["train", "--config", ours, f"-config={ours}", "--workdir=deit.py"]
    assert expand_config(words) == expected


def test_a_family_by_name():
    assert families.family("distill").PAPER
    assert families.family("nothing") is None
    assert "there are ablation.py, cosub.py," in families.no_config_file("x.py")


@pytest.mark.parametrize("package", [False, True])
def test_what_config_files_import_as_configs(tmp_path, package):
    """The project's, though another package has that name; or the package a file belongs to."""
    other = tmp_path / "elsewhere" / "configs"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / "digits.py").write_text("get_config = lambda: 'another'\n")
    own = other / "mine.py" if package else tmp_path / "mine.py"
    own.write_text(OWN)
    code = (
        f"import sys; sys.path[:0] = [{str(other.parent)!r}, {str(ROOT)!r}]\n"
        "from deit_jax.config import families\n"
        f"families.find_config_file({str(own)!r})\n"
        "from configs import digits\n"
        "print(digits.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == (other if package else ROOT / "configs") / "digits.py"
