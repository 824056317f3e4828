"""Planning, running and printing sweeps, with a stand-in for train.py that costs no time."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from deit_jax.cli.main import main
from deit_jax.files import strict_json
from deit_jax.sweeps import plan as sweep_plan
from deit_jax.sweeps.local import run_all
from deit_jax.sweeps.plan import plan, read_config, variants_of
from deit_jax.sweeps.slurm import array_script

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.py")

# Writes what it was given, and a result unless the seed is 1.
STAND_IN = """
import json, pathlib, sys
flags = dict(flag.lstrip("-").split("=", 1) for flag in sys.argv[1:])
run = pathlib.Path(flags["workdir"])
run.mkdir(parents=True, exist_ok=True)
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if flags["config.seed"] == "1" and not pathlib.Path("mended").exists():
    sys.exit(3)
(run / "result.json").write_text("{}")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(STAND_IN)
    monkeypatch.setattr(sweep_plan, "TRAIN_PROGRAM", ("train.py",))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(here):
    return [json.loads(line) for line in (here / "calls.jsonl").read_text().splitlines()]


def record(run, config=None):
    """What train.py leaves beside its result."""
    content = {"config": config or run.config}
    (run.workdir / "config.json").write_text(strict_json(content))


def test_every_variant_with_every_seed():
    flags = ["--config.schedule.epochs=7", "--config.teacher.weights=runs/{variant}/{seed}"]
    runs = plan(DIGITS, ["none", "hard"], [0, 3], "out", flags)
    assert [run.name for run in runs] == ["none-seed0", "none-seed3", "hard-seed0", "hard-seed3"]
    last = runs[-1]
    assert last.config.seed == 3 and last.config.schedule.epochs == 7.0
    assert last.config.teacher.weights == "runs/hard/3"
    assert last.command("python") == [
        *("python", "-m", "deit_jax", "train"),
        f"--config={DIGITS}:hard",
        "--workdir=out/hard-seed3",
        "--config.seed=3",
        "--config.schedule.epochs=7",
        "--config.teacher.weights=runs/hard/3",
    ]


def test_commas_and_defaults():
    runs = plan(str(ROOT / "configs/distill.py"), ["tiny,soft", "tiny,hard"], [0], "out")
    assert [run.name for run in runs] == ["tiny-soft-seed0", "tiny-hard-seed0"]
    assert variants_of(DIGITS)[:2] == ("teacher", "none")


def test_the_configuration_is_that_of_train_py():
    from configs.deit import get_config

    expected = get_config("tiny")
    expected.schedule.epochs = 3.0
    expected.augment.mean = (0.5, 0.5, 0.5)
    flags = ["--config.schedule.epochs=3", "--config.augment.mean=(0.5, 0.5, 0.5)"]
    got = read_config(str(ROOT / "configs/deit.py") + ":tiny", flags)
    assert got.to_dict() == expected.to_dict()
    bundle = read_config(str(ROOT / "configs/deit.py") + ":tiny", ["--config.reference=True"])
    assert bundle.schedule.per_epoch


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": "configs/digit.py"}, "There is no config file configs/digit.py"),
        ({"variants": ["nome"]}, "Did you mean 'none'"),
        ({"seeds": [1, 1]}, "seed 1 is given twice"),
        ({"variants": ["none", "none"]}, "variant none is given twice"),
        ({"overrides": ["--config.data.fractoin=1"]}, "Did you mean 'data.fraction'"),
        (
            {"overrides": ["--config.data.fraction=x"]},
            "--config.data.fraction is 'x'; give a number",
        ),
        ({"overrides": ["--config.reference=True"]}, "config.reference sets ema.warmup"),
    ],
)
def test_mistakes_are_found_before_anything_runs(changes, words):
    options = {"config": DIGITS, "variants": ["none"], "seeds": [0], "workdir": "out"}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        plan(**(options | changes))


def test_a_failure_is_named_and_the_others_go_on(here):
    runs = plan(DIGITS, ["none"], [0, 1, 2], "out")
    lines = []
    assert run_all(runs, lines.append) == ["none-seed1"]
    assert [flags[2] for flags in calls(here)] == [f"--config.seed={n}" for n in range(3)]
    assert "[2 of 3] none-seed1: FAILED with exit code 3; the sweep goes on." in lines
    # Again: what has finished is skipped and said, what failed is tried.
    for run in runs[::2]:
        record(run)
    (here / "mended").touch()
    lines.clear()
    assert run_all(runs, lines.append) == []
    assert len(calls(here)) == 4
    assert [line for line in lines if "skipped" in line] == [
        "[1 of 3] none-seed0: finished before, skipped.",
        "[3 of 3] none-seed2: finished before, skipped.",
    ]
    # Nor does one whose record is damaged stop them.
    (runs[0].workdir / "config.json").write_text("{")
    record(runs[1])
    lines.clear()
    assert run_all(runs, lines.append) == ["none-seed0"]
    assert "FAILED" in lines[0] and "config.json is damaged" in lines[0] and len(lines) == 3


# Saves what it has when it is told to stop, which takes longer than a shell would wait.
SAVING = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.6)
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("started").touch()
time.sleep(60)
"""
SWEEP = """
import sys
from deit_jax.cli.main import main
from deit_jax.sweeps import plan
plan.TRAIN_PROGRAM = ("train.py",)
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_goes_on_to_the_run_and_the_sweep_waits_for_it(here):
    (here / "train.py").write_text(SAVING)
    command = [sys.executable, "-c", SWEEP, "sweep", f"--config={DIGITS}", "--workdir=out"]
    command += ["--variants", "none", "--seeds", "0", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sweep = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not (here / "started").exists():
        assert sweep.poll() is None
        time.sleep(0.02)
    sweep.send_signal(signal.SIGTERM)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 143 and (here / "saved").exists()
    assert errors == "[1 of 2] none-seed0: stopped; the same command goes on.\n"


def test_a_finished_run_of_other_values_is_no_success(here):
    (run,) = plan(DIGITS, ["none"], [0], "out", ["--config.schedule.epochs=7"])
    other = plan(DIGITS, ["none"], [0], "out", ["--config.log.every_steps=9"])[0].config
    run.workdir.mkdir(parents=True)
    (run.workdir / "result.json").write_text("{}")
    record(run, other)
    lines = []
    assert run_all([run], lines.append) == [run.name]
    # How often something is logged does not count.
    assert f"(schedule.epochs: {other.schedule.epochs} -> 7.0)" in lines[0]


def test_the_printed_array_runs_what_was_planned_whatever_is_in_a_value(here):
    nasty = """$(touch broken) `touch broken`; touch broken & "double" 'single' \\ {x}"""
    (here / "train.py").write_text(STAND_IN)
    flags = [f"--config.data.directory={nasty}"]
    runs = plan(DIGITS, ["none"], [0, 2], here / "with space $HOME", flags)
    script = array_script(runs, sys.executable)
    for index in (0, 1):
        environment = {"SLURM_ARRAY_TASK_ID": str(index), "PATH": "/usr/bin:/bin", "HOME": "/home"}
        subprocess.run(["bash", "-c", script], check=True, env=environment)
    assert calls(here) == [run.command()[2:] for run in runs]
    assert f"--config.data.directory={nasty}" in calls(here)[0]
    assert not (here / "broken").exists()
    assert "#SBATCH --array=0-1\n" in script
    # A task that has finished ends at once; one that does not exist is an error.
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "none-seed2: finished before, skipped.\n" and len(calls(here)) == 2
    environment["SLURM_ARRAY_TASK_ID"] = "2"
    assert subprocess.run(["bash", "-c", script], env=environment).returncode == 2


def test_the_command(here, capsys):
    arguments = ["sweep", f"--config={DIGITS}", "--variants", "none", "--seeds", "0", "1"]
    arguments += ["--workdir=out", "--config.schedule.epochs=7"]
    assert main(arguments) == 1
    output = capsys.readouterr().out
    assert "1 of 2 runs have finished." in output and "Failed: none-seed1." in output
    assert "--config.schedule.epochs=7" in calls(here)[0]
    assert main([*arguments, "--print-slurm"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n")
    assert len(calls(here)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give --config FILE and --workdir DIR"),
        (["--collect", "x", "--workdir=y"], "--collect only reads"),
        (["--config=x", "--workdir=y", "--output=z"], "--output is where the tables"),
        (["--collect", "nowhere"], "There is no directory nowhere"),
        ([f"--config={DIGITS}", "--workdir=y", "--config.seed=1"], "what --seeds sets"),
    ],
)
def test_usage_errors(arguments, words, here, capsys):
    try:
        code = main(["sweep", *arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert words in capsys.readouterr().err
