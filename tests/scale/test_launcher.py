"""Several processes of a program that is no training: variables, output, restarts, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deit_jax.cli.main import main
from deit_jax.scale.launcher import _cause

ROOT = Path(__file__).parents[2]
# Each says where it stands and does what the files of the folder say.
PROGRAM = """
import os, pathlib, signal, sys, time
index = os.environ["JAX_PROCESS_ID"]
folder = pathlib.Path(sys.argv[1])
count, address = (os.environ[f"JAX_{name}"] for name in ("NUM_PROCESSES", "COORDINATOR_ADDRESS"))
print(index, "of", count, "at", address, flush=True)
starts = folder / f"starts-{index}"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
plan = (folder / index).read_text().split() if (folder / index).exists() else []
what = plan[min(len(starts.read_text()), len(plan)) - 1] if plan else "0"
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "wait":
    (folder / f"waits-{index}").touch()
    time.sleep(60)
sys.exit(int(what))
"""


def launch(folder, *flags, plan=("0", "0")):
    for index, words in enumerate(plan):
        (folder / str(index)).write_text(words)
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "deit_jax", "launch", "-n", "2", *flags, "--"]
    return subprocess.Popen(
        [*command, str(folder / "program.py"), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PROCESS_ID": "9"},
    )


def ended(process):
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.slow
def test_each_is_told_which_it_is_and_the_first_has_the_terminal(tmp_path):
    code, output, errors = ended(launch(tmp_path))
    assert code == 0
    assert output.startswith("0 of 2 at 127.0.0.1:") and output.count("\n") == 1
    assert errors == "[1] 1" + output[1:]


@pytest.mark.slow
def test_all_are_started_again_when_one_dies_and_not_for_ever(tmp_path):
    code, output, errors = ended(launch(tmp_path, "--restarts", "2", plan=("4 4 0", "kill 7 0")))
    assert code == 0 and output.count("\n") == 3
    assert "launch: process 1 of 2 was ended by SIGKILL; all are started again (1 of 2)." in errors
    assert "launch: process 1 of 2 ended with exit code 7; all are started again (2 of" in errors
    (tmp_path / "starts-0").unlink()
    (tmp_path / "starts-1").unlink()
    code, _, errors = ended(launch(tmp_path, "--restarts", "1", plan=("4", "kill")))
    assert code == 137
    assert errors.endswith("SIGKILL, which ends the run after 1 restarts.\n")


@pytest.mark.slow
def test_what_the_user_has_to_mend_is_not_tried_again(tmp_path):
    code, output, errors = ended(launch(tmp_path, "--restarts", "5", plan=("2", "2")))
    assert code == 2 and output.count("\n") == 1 and "launch:" not in errors


@pytest.mark.slow
def test_signals_go_to_all_and_end_the_run(tmp_path):
    process = launch(tmp_path, "--restarts", "5", plan=("wait", "wait"))
    deadline = time.monotonic() + 30
    while not all((tmp_path / f"waits-{index}").exists() for index in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, _, errors = ended(process)
    assert code == 143 and "launch:" not in errors


def test_the_cause_is_not_what_the_others_end_with():
    assert _cause([4, 137]) == (1, 137)
    assert _cause([4, 1, 4]) == (1, 1)
    assert _cause([2, 137]) == (0, 2)
    assert _cause([0, 4]) == (1, 4)
    assert _cause([None, 137]) == (1, 137)
    assert _cause([0, 0]) == (0, 0)


def test_a_wrong_command_line_is_a_sentence(capsys):
    for words in (["-n", "0", "--", "x"], ["-n", "2"], ["-n", "2", "--restarts", "-1", "--", "x"]):
        with pytest.raises(SystemExit):
            main(["launch", *words])
        assert capsys.readouterr().err.startswith("error: ")
