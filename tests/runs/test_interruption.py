"""What becomes of a signal before, between and after steps, and where nothing runs in Python."""

import pathlib
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from deit_jax.runs import interruption as module
from deit_jax.runs.interruption import Abandoned, Interruption
from deit_jax.training import stretch
from deit_jax.training.stretch import Stretch

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def watched(monkeypatch):
    """An interruption on a clock of its own, which notes how the process would have ended."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    left = []
    interruption = Interruption(leave=lambda code, line: left.append((code, line)))
    return interruption, now, left


def test_before_the_first_step_the_process_just_ends(watched):
    interruption, _, left = watched
    interruption.receive(signal.SIGTERM)
    assert left[0][0] == 143 and "SIGTERM before the first step" in left[0][1]


def test_after_a_step_it_is_for_the_loop_to_end_and_the_second_signal_ends_at_once(watched):
    interruption, now, left = watched
    interruption.step_done()
    interruption.receive(signal.SIGINT)
    # `timeout` and others signal a process twice in a moment.
    now[0] += 0.01
    interruption.receive(signal.SIGINT)
    assert interruption.requested and not left
    stopped = interruption.error(7, saved=True)
    assert stopped.code == 130
    assert str(stopped) == "stopped by SIGINT after step 7, saved; the same command goes on."
    assert "could not be saved" in str(interruption.error(7, saved=False))
    now[0] += 1
    interruption.receive(signal.SIGTERM)
    assert left[0][0] == 143 and "second signal" in left[0][1]


@pytest.mark.parametrize("saves", [False, True])
def test_a_step_that_never_ends_is_given_up_but_not_a_save(watched, monkeypatch, saves):
    interruption, now, left = watched
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    now[0] += 0.2
    # As long as the longest step so far, at least.
    interruption.step_done()
    interruption.receive(signal.SIGTERM)
    if saves:
        interruption.saving()
    time.sleep(0.1)
    assert not left
    time.sleep(0.3)
    assert [code for code, _ in left] == ([] if saves else [143])


def test_an_evaluation_is_given_up():
    interruption = Interruption(leave=lambda code, line: None)
    items = interruption.unless_requested([1, 2, 3])
    assert next(items) == 1
    interruption.receive(signal.SIGTERM)
    with pytest.raises(Abandoned):
        next(items)


def test_processes_agree_after_a_step_that_is_logged(monkeypatch):
    asked = []
    monkeypatch.setattr(stretch.jax, "process_count", lambda: 2)
    monkeypatch.setattr(stretch, "any_process", lambda own: asked.append(own) or True)
    run = SimpleNamespace(
        interruption=Interruption(), config=SimpleNamespace(log=SimpleNamespace(every_steps=5))
    )
    # The signal came to the other process.
    assert [Stretch.stop_due(run, step) for step in range(1, 6)] == [False] * 4 + [True]
    assert asked == [False]


# The main thread sits in C, as while XLA compiles: Python's own handlers would wait for its end.
IN_C = """
import ctypes, signal, sys
if sys.argv[1:] == ["ignoring"]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from deit_jax.runs.interruption import Interruption
interruption = Interruption.install()
if sys.argv[1:] == ["stepping"]:
    interruption.step_done()
print("ready", flush=True)
ctypes.CDLL(None).usleep(20_000_000)
"""


def in_c(*arguments):
    # As from a terminal: the background of a shell ignores SIGINT, nohup SIGHUP.
    launch = f"""
import signal
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
{IN_C}"""
    process = subprocess.Popen(
        [sys.executable, "-c", launch, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_do_not_wait_for_the_main_thread(name):
    number = getattr(signal, name)
    process = in_c()
    begin = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    # At once on a quiet machine.
    assert time.monotonic() - begin < 10
    assert process.returncode == 128 + number
    assert output == "" and errors.count("\n") == 1
    assert errors.startswith(f"stopped by {name} before the first step")


def test_the_second_signal_ends_a_step_at_once():
    process = in_c("stepping")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 10
    assert process.returncode == 130
    notice, end = errors.splitlines()
    assert notice.startswith("SIGTERM: the step at hand is finished and saved")
    assert end.startswith("ended at once by SIGINT, the second signal")


def test_what_was_ignored_before_stays_ignored():
    process = in_c("ignoring")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, errors
