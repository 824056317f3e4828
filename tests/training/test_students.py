"""A sweep of students over one stream of the demo's data asks the teacher once."""

import json

import pytest

from deit_jax.cli.main import main
from deit_jax.sweeps import local
from tests import program
from tests.config.reduced import save_weights

pytestmark = pytest.mark.full

STUDENTS = ("hard", "hard,class_token", "hard,patch2")


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("quick_compilation", "on_devices")
def test_three_students_over_one_stream_pay_for_one_pass_of_the_teacher(tmp_path, monkeypatch):
    def run_here(command):
        flags = dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)
        overrides = [f"--{key}={value}" for key, value in flags.items() if "." in key]
        code, output = program.run_here(flags["config"], flags["workdir"], *overrides)
        assert code == 0, output
        return 0, 0

    monkeypatch.setattr(local, "_run", run_here)
    words = ["sweep", "--config=configs/digits.py", "--variants", *STUDENTS, "--seeds", "0"]
    words += [f"--workdir={tmp_path / 'runs'}", f"--config.teacher.labels={tmp_path / 'labels'}"]
    words += [f"--config.teacher.weights={save_weights(tmp_path, 'regnety_micro')}"]
    # Three steps.
    assert main([*words, "--config.schedule.epochs=6", "--config.schedule.warmup_epochs=1"]) == 0
    results = [
        json.loads((tmp_path / "runs" / f"{name}-seed0" / "result.json").read_text())
        for name in (student.replace(",", "-") for student in STUDENTS)
    ]
    counts = [(each["labels"]["computed"], each["labels"]["read"]) for each in results]
    assert counts == [(3, 0), (0, 3), (0, 3)]
    assert len({each["digest"] for each in results}) == 3
    assert len({each["teacher"]["digest"] for each in results}) == 1
