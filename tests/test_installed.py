"""The package as it is installed: a wheel in a fresh environment, used from an empty directory."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests import program

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy: building writes beside the sources."""
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = ("deit_jax", "configs", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")
    subprocess.run(["cp", "-r", *files, "setup.py", source], cwd=ROOT, check=True)
    options = ["--no-build-isolation", "--no-deps", "--no-index", "-w", target]
    subprocess.run([*PIP, "wheel", *options, source], check=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bin_directory(wheel, tmp_path_factory):
    """Programs of an environment that has our dependencies from the one of the tests."""
    made = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    paths = {"base": str(made), "platbase": str(made)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    options = ["--no-deps", "--no-index", wheel]
    subprocess.run([*PIP, "--python", made / "bin" / "python", "install", *options], check=True)
    return made / "bin"


def test_nothing_lies_beside_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deit_jax"}
    families = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert families == {Path(name).name for name in names if name.startswith("deit_jax/configs/")}


def test_it_trains_by_the_name_of_a_config_file(bin_directory, tmp_path):
    flags = ["--config.schedule.epochs=4", "--config.schedule.warmup_epochs=0"]
    # PyTorch, which is beside it here, would be imported to write the log.
    flags += ["--config.model.name=deit_micro_patch4_16", "--config.log.tensorboard=False"]
    command = [bin_directory / "deit-jax", "train", "--config", "configs/digits.py:none"]
    options = {"capture_output": True, "text": True, "cwd": tmp_path}
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run([*command, "--workdir=run", *flags], env=environment, **options)
    assert done.returncode == 0, done.stderr
    assert program.result(tmp_path / "run")["steps"] == 2
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["git_commit"] == "" and record["command"][1] == "train"
    # Of a family that builds on another one, and a mistake.
    command[3] = "digits_finetune.py:hard"
    done = subprocess.run([*command, "--workdir=x", "--config.teacher.weight=no"], **options)
    assert done.returncode == 2 and "Did you mean 'teacher.weights'?" in done.stderr
    assert not (tmp_path / "x").exists()
