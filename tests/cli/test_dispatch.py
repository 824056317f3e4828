import importlib
import subprocess
import sys

import pytest

from deit_jax.cli import main as dispatch


def _python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test_a_command_that_fails_exits_with_2_and_one_sentence():
    done = _python("-m", "deit_jax", "report", "/there/is/no/such/run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: There is no run directory /there/is/no/such/run.\n"


@pytest.mark.parametrize(
    "statement",
    [
        "import deit_jax; assert deit_jax.__version__",
        "from deit_jax.cli.main import main; main(['--help'])",
        "import deit_jax.reports.report",
    ],
)
def test_what_must_not_start_jax(statement):
    check = "import sys; found = {'jax', 'jaxlib', 'flax', 'matplotlib'} & set(sys.modules)"
    done = _python("-c", f"{statement}\n{check}\nassert not found, found")
    assert done.returncode == 0, done.stderr


# A signal while the libraries of training are loaded.
EARLY_SIGNAL = """
import os, signal, sys, time
from deit_jax import __main__

class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == "deit_jax.cli.train":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

sys.meta_path.insert(0, Loader())
sys.argv[1:] = ["train"]
__main__.start()
"""


def test_training_takes_signals_before_anything_else():
    done = _python("-c", EARLY_SIGNAL)
    assert done.returncode == 143
    assert done.stderr.startswith("stopped by SIGTERM before the first step of this start")


def test_public_names():
    import deit_jax
    from deit_jax import api

    assert deit_jax.list_models is api.list_models
    assert deit_jax.create_model is api.create_model
    assert set(deit_jax.__all__) <= set(dir(deit_jax))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        deit_jax.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", dispatch.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as exit_info:
        dispatch.main([name, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m deit_jax {name}" in text.partition("Example:")[2]


def test_overview_names_every_command(capsys):
    assert dispatch.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in dispatch.COMMANDS)


def test_mistyped_command(capsys):
    assert dispatch.main(["evalaute"]) == 2
    assert capsys.readouterr().err == (
        "error: There is no command 'evalaute'; did you mean 'evaluate'?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["report"], ["report", "x", "--wieghts=ema"], ["evaluate", "x", "--checkpoint=no"]],
)
def test_usage_errors_are_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        dispatch.main(arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert f"{arguments[0]} --help" in error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("two\nlines"), 2, "error: two lines\n"),
        (FileExistsError("here is something"), 2, "error: here is something\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied.\n"),
        (ModuleNotFoundError("install the extra"), 2, "error: install the extra\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_commands(error, code, text, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(importlib.import_module("deit_jax.cli.models"), "run", fail)
    assert dispatch.main(["models"]) == code
    assert capsys.readouterr().err == text


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(args):
        raise KeyError("a defect")

    monkeypatch.setattr(importlib.import_module("deit_jax.cli.models"), "run", fail)
    with pytest.raises(KeyError):
        dispatch.main(["models"])
