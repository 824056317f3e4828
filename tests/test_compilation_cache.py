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
        "for n in (1, 2, 3):\n"
        "    def f(x): return x * n + 1\n"
        "    f.__name__ = f'times_{n}'\n"
        "    assert jax.jit(f)(2.0) == 2 * n + 1\n"
        "print(events.count('/jax/compilation_cache/cache_hits'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


@pytest.mark.slow
def test_a_second_process_finds_programs_and_damaged_ones_are_replaced(home):
    assert compute()[0] == 0
    sound, said = compute()
    entries = list((home / "deit_jax" / "programs").glob("*/*-cache"))
    assert sound >= 3 and len(entries) >= 3 and said == ""
    for number, entry in enumerate(entries):
        data = entry.read_bytes()
        # Cut, emptied and overwritten.
        entry.write_bytes([data[: len(data) // 2], b"", bytes(len(data))][number % 3])
    hits, said = compute()
    assert hits == 0
    # Once for all of them.
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
    # As XLA's own, of what it has measured on GPUs.
    (directory / "measured").mkdir()
    os.utime(directory / "measured", (0, 0))
    os.environ[CHOSEN] = ""
    keep_compiled_programs()
    assert sorted(directory.iterdir()) == [directory / "measured", new]
    assert os.environ[CHOSEN] == str(directory)
