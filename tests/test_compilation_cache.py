"""Compiled programs are kept where the user's caches are, unless something else was asked for."""

import os
import subprocess
import sys
import time

import pytest

from deit_jax.compilation_cache import keep_compiled_programs

CHOSEN = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    # Set first, so that monkeypatch puts back whatever the function leaves.
    monkeypatch.setenv(CHOSEN, "")
    return tmp_path


def compute():
    """Compile and run something in a process; return what it found in the cache, and said."""
    program = (
        "from deit_jax.compilation_cache import keep_compiled_programs as keep; keep()\n"
        "import jax; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "events = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: events.append(name))\n"
        "assert jax.jit(lambda x: x * 3 + 1)(2.0) == 7\n"
        "print(events.count('/jax/compilation_cache/cache_hits'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


@pytest.mark.slow
def test_a_second_process_finds_the_first_ones_program(home):
    assert compute()[0] == 0
    assert compute()[0] > 0
    assert list((home / "deit_jax" / "programs").glob("*/*-cache"))


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "emptied", "overwritten"])
def test_damaged_programs_are_replaced_and_that_is_said_once(home, harm):
    compute()
    sound, _ = compute()
    for entry in (home / "deit_jax" / "programs").glob("*/*-cache"):
        data = entry.read_bytes()
        left = {"cut": data[: len(data) // 2], "emptied": b"", "overwritten": bytes(len(data))}
        entry.write_bytes(left[harm])
    hits, said = compute()
    assert hits == 0
    assert said.count("compiled again and replaced") == 1 and "UserWarning" not in said
    assert compute() == (sound, "")


@pytest.mark.parametrize(
    "name, value", [(CHOSEN, "/elsewhere"), ("JAX_ENABLE_COMPILATION_CACHE", "0")]
)
def test_what_the_user_chose_stays(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    before = os.environ[CHOSEN]
    keep_compiled_programs()
    assert os.environ[CHOSEN] == before
    assert not list(home.iterdir())


def test_a_home_that_cannot_be_written_to_costs_only_time(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    keep_compiled_programs()
    assert os.environ[CHOSEN] == ""


def test_programs_unused_for_a_month_go(home):
    keep_compiled_programs()
    kept = home / "deit_jax" / "programs"
    (directory,) = kept.iterdir()
    old, new = directory / "old-cache", directory / "new-cache"
    for path, days in ((old, 31), (new, 29)):
        path.write_text("")
        os.utime(path, (time.time() - days * 86400,) * 2)
    os.environ[CHOSEN] = ""
    keep_compiled_programs()
    assert list(directory.iterdir()) == [new]
