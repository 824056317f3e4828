"""Each mistake is answered by one clear sentence and exit code 2, and nothing is overwritten."""

import os

import pytest

from configs import digits
from deit_jax.runs.directory import open_run
from deit_jax.training import loop
from deit_jax.training.skipped_steps import TrainingStopped
from tests import program


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "flags", "words"),
    [
        (
            "configs/digits.py:none",
            ["--config.optimizer.learnin_rate=1"],
            "Did you mean 'optimizer.learning_rate'?",
        ),
        ("configs/digits.py:nome", [], "Did you mean 'none'?"),
        ("configs/digit.py:none", [], "There is no config file configs/digit.py"),
        (
            "configs/digits.py:none",
            ["--config.seed=many"],
            "--config.seed is 'many'; give a whole number",
        ),
        ("configs/digits.py:none", ["--wrkdir=x"], "Did you mean: workdir"),
        ("configs/digits.py:hard", ["--config.teacher.weights="], "teacher.weights is empty"),
        ("configs/digits.py:hard", ["--config.teacher.weights=nowhere"], "does not exist"),
        (
            "configs/digits.py:none",
            ["--config.training.batch_size=9"],
            "devices cannot share evenly",
        ),
        (
            "configs/digits.py:none",
            ["--config.model.image_size=16,17"],
            "cannot cut into patches of 4 pixels",
        ),
        ("configs/digits.py:none", ["--config.model.num_classes=7"], "has 10 classes"),
        ("configs/deit.py:tiny", ["--config.data.directory=nowhere"], "nowhere"),
    ],
)
def test_one_sentence_and_exit_code_2(experiment, flags, words, tmp_path):
    code, output = program.run_here(experiment, tmp_path / "run", *flags)
    assert code == 2, output
    assert words in output
    assert output.count("\nerror:") + output.startswith("error:") >= 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.sed=1", "Did you mean 'seed'?"),
        ("--config.model.image_size=96,96,3", "--config.model.image_size is (96, 96, 3); give"),
        ("--config.augment.std=0,0,0", "which must be positive"),
        (f"--config.seed={2**64}", "below 2**64"),
        ("--data-path=images", "is a flag of PyTorch's DeiT; here it is --config.data.directory"),
        ("--batch-size", "here it is --config.training.batch_size"),
    ],
)
def test_what_no_data_is_needed_for_is_answered_before_jax_starts(tmp_path, flag, words):
    begin = os.times().children_user
    code, output = program.run("configs/digits.py:none", tmp_path / "run", flag)
    seconds = os.times().children_user - begin
    assert code == 2 and words in output and output.count("\n") == 1, output
    assert not (tmp_path / "run").exists()
    # Processor time of the whole process; JAX alone takes more to import.
    assert seconds < 3


def test_a_config_file_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "own.py").write_text("def get_config():\n    return {}['size']\n")
    code, output = program.run(tmp_path / "own.py", tmp_path / "run")
    assert code == 2 and output.startswith("error: KeyError: 'size' (") and "line 2)" in output
    assert output.count("\n") == 1
    (tmp_path / "own.py").write_text("open('names.txt')\n")
    code, output = program.run(tmp_path / "own.py", tmp_path / "run")
    assert code == 2 and "No such file or directory: 'names.txt'" in output
    assert output.count("\n") == 1 and "There is no config file" not in output


@pytest.mark.slow
def test_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    code, output = program.run_here("configs/digits.py:none", tmp_path)
    assert code == 2 and "holds no run" in output and "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    code, output = program.run_here("configs/digits.py:none", tmp_path / "file" / "run")
    assert code == 2 and output.startswith("error: ") and "file" in output


@pytest.mark.slow
def test_changed_configuration_is_refused(tmp_path):
    before = digits.get_config("none")
    before.schedule.update(epochs=2.0, warmup_epochs=0.0)
    with open_run(tmp_path / "run", before):
        pass
    (tmp_path / "run" / "checkpoints" / "6").mkdir(parents=True)
    (tmp_path / "run" / "result.json").write_text("{}")
    code, output = program.run_here("configs/digits.py:none", tmp_path / "run")
    assert code == 2 and "schedule.epochs: 2.0 ->" in output
    assert (tmp_path / "run" / "result.json").read_text() == "{}"


# What stops training, and that the checkpoints stay: tests/training.
@pytest.mark.slow
def test_training_that_stopped_is_a_sentence_and_exit_code_3(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise TrainingStopped("the loss was not finite.")

    monkeypatch.setattr(loop, "train", stopped)
    code, output = program.run_here("configs/digits.py:none", tmp_path / "run")
    assert code == 3 and output == "stopped: the loss was not finite.\n"
