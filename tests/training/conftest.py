"""What tests of kept labels share."""

import shutil

import pytest

from deit_jax.training.distillation import label_store
from tests.training.labelled_runs import configure, run


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(label_store, "_MOST_STEPS", 2)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture
def labelled(folder, tmp_path, on_devices, small_parts, programs_made_once):
    """The configuration of a run whose labels are all there, and whose teacher is its own."""
    config = configure(folder, "hard", "hard-all")
    if not (folder / "hard-all").exists():
        run(config)
    shutil.copytree(folder / "hard-all", tmp_path / "labels")
    config.teacher.labels = str(tmp_path / "labels")
    return config
