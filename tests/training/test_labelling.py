"""Labels computed ahead of training are those that a run would have computed."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from deit_jax.config.defaults import default_config
from deit_jax.schema import Config
from deit_jax.training.distillation import open_labels
from deit_jax.training.labelling import LabelledSteps, label, steps_of
from tests import program
from tests.training.labelled_runs import BATCH, STEPS, configure, refuse_loading, run


def test_stretches_of_epochs_that_adjoin_have_every_step_once():
    config = default_config()
    config.schedule.epochs, config.schedule.cooldown_epochs = 30.0, 2.5
    per_epoch = 40 / 7
    every = steps_of(None, Config.of(config), per_epoch)
    assert len(every) == round(32.5 * per_epoch)
    cuts = [0.0, 0.5, 7.0, 7.2, 31.0, 100.0]
    stretches = itertools.pairwise(cuts)
    pieces = [steps_of(stretch, Config.of(config), per_epoch) for stretch in stretches]
    assert [step for piece in pieces for step in piece] == list(every)
    with pytest.raises(ValueError, match="no step in the epochs 40:50 of a run of 32"):
        steps_of((40.0, 50.0), Config.of(config), per_epoch)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "small_parts", "on_devices", "programs_made_once")
def test_labels_ahead_are_those_of_a_run_and_only_what_is_missing_is_computed(
    folder, tmp_path, monkeypatch
):
    config = configure(folder, "soft")
    config.teacher.labels = str(tmp_path / "by-run")
    run(config)
    config.teacher.labels = str(tmp_path / "ahead")
    epoch = BATCH / 597
    # The middle first: what is missing lies around it.
    assert label(config, (epoch, 3 * epoch)) == LabelledSteps(range(1, 3), 2)
    assert label(config) == LabelledSteps(range(STEPS), 3)
    # What is said otherwise is not known to be the same before the teacher is loaded.
    config.teacher.image_size = (16, 16)
    assert label(config) == LabelledSteps(range(STEPS), 0)
    config.teacher.image_size = (0, 0)
    monkeypatch.setattr(open_labels, "load_teacher", refuse_loading)
    assert label(config) == LabelledSteps(range(STEPS), 0)
    # To the bit: the same programs have made them.
    for path in (tmp_path / "by-run" / "parts").iterdir():
        assert path.read_bytes() == (tmp_path / "ahead" / "parts" / path.name).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "small_parts", "on_devices", "programs_made_once")
def test_stretches_labelled_at_the_same_time_or_apart_come_together(folder, tmp_path):
    """Two writers of one directory, and two directories whose parts are copied together."""
    config, epoch = configure(folder, "soft"), BATCH / 597
    config.teacher.labels = str(tmp_path / "together")
    stretches = [(0.0, 3 * epoch), (3 * epoch, 9.0)]
    with ThreadPoolExecutor(2) as machines:
        done = [machines.submit(label, config, stretch) for stretch in stretches]
        assert [each.result().computed for each in done] == [3, 2]
    assert label(config) == LabelledSteps(range(STEPS), 0)
    for name, stretch in zip(("one", "other"), stretches, strict=True):
        config.teacher.labels = str(tmp_path / name)
        label(config, stretch)
    # Both have something of the second part, and copies do not add up.
    shutil.copytree(tmp_path / "other" / "parts", tmp_path / "one" / "parts", dirs_exist_ok=True)
    config.teacher.labels = str(tmp_path / "one")
    assert label(config) == LabelledSteps(range(STEPS), 1)
    for path in (tmp_path / "together" / "parts").iterdir():
        assert path.read_bytes() == (tmp_path / "one" / "parts" / path.name).read_bytes()


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_processes_that_train_together_share_one_set_of_labels(folder, tmp_path):
    """The first asks the disk for all; each reads its rows."""
    config = configure(folder)
    flags = [f"--config.teacher.weights={config.teacher.weights}", "--config.schedule.epochs=6"]
    flags += ["--config.schedule.warmup_epochs=1", f"--config.teacher.labels={tmp_path / 'labels'}"]
    results = []
    for name in ("filling", "reading"):
        words = ["--config=configs/digits.py:hard", f"--workdir={tmp_path / name}", *flags]
        command = ["-m", "deit_jax", "launch", "-n", "2", "--", "train.py", *words]
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
        subprocess.run([sys.executable, *command], check=True, env=environment, cwd=program.ROOT)
        results.append(json.loads((tmp_path / name / "result.json").read_text()))
    counts = [(each["labels"]["computed"], each["labels"]["read"]) for each in results]
    assert counts == [(3, 0), (0, 3)]
    assert results[0]["digest"] == results[1]["digest"]
