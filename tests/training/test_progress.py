import io
import re
import sys

import jax
import pytest
from rich.console import Console

from deit_jax.training.progress import Progress

VALUES = {"epoch": 1.25, "loss": 2.0, "top1": 40.0, "images_per_second": 1234.5, "other": 7.0}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def show(clock):
    """Make a Progress that writes into memory, and return it with a function that reads it."""

    def make(total=100, *, terminal=False, start_step=0, width=80):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
        return Progress(total, start_step=start_step, console=console, clock=clock), out.getvalue

    return make


def test_lines_name_the_numbers_that_matter(show, clock):
    progress, text = show(1000)
    with progress:
        progress.message("starting [bold] :smile:")
        progress.update(1)
        clock.now = 9.0
        progress.show_best(50, 45.678)
        progress.update(100, VALUES)
    assert text().splitlines() == [
        "starting [bold] :smile:",
        "step 100 of 1,000 (10%)  epoch 1.25  loss 2.0000  top-1 40.00 %  1,234 images/s  "
        "best 45.68 % at step 50  0:01:22 left",
    ]


def test_a_line_is_never_wrapped_in_a_file(show):
    progress, text = show(width=20)
    progress.message("word " * 50)
    assert text().count("\n") == 1


def test_at_most_one_line_in_ten_seconds_and_the_last_one_always(show, clock):
    progress, text = show(100)
    for step in range(1, 101):
        clock.now += 1.0
        progress.update(step, VALUES)
    steps = [int(match) for match in re.findall(r"step (\d+) of", text())]
    assert steps == [*range(1, 101, 10), 100]


def test_the_last_line_promises_nothing(show):
    progress, text = show(100)
    progress.update(99)
    progress.show_best(50, 45.678)
    # An evaluation follows, which may be better.
    progress.update(100, VALUES)
    last = text().splitlines()[-1]
    assert last.startswith("step 100 of 100 (100%)")
    assert "best" not in last and "left" not in last


def test_compilation_is_not_counted_in_the_time_left(show, clock):
    progress, text = show(111, start_step=10)
    clock.now = 500.0  # The first step after a start compiles.
    progress.update(11, VALUES)
    assert "left" not in text()
    clock.now += 20.0
    progress.update(21, VALUES)
    # 2 seconds a step, 90 steps to go.
    assert "0:03:00 left" in text().splitlines()[-1]


def test_steps_may_take_minutes(show, clock):
    progress, text = show(4)
    for step in (1, 2, 3):
        clock.now += 7500.0
        progress.update(step, VALUES)
    assert text().splitlines()[-1].endswith("2:05:00 left")


def test_a_terminal_gets_a_bar_with_messages_above_it(show, clock):
    progress, text = show(1000, terminal=True)
    with progress:
        progress.update(1)
        clock.now = 9.0
        progress.show_best(50, 45.678)
        progress.update(100, VALUES)
        progress.message("step 100: 45.68 % top-1")
        print("from elsewhere", file=sys.stderr)
    shown = text()
    assert "━" in shown
    assert "100/1000" in shown
    assert "0:01:22" in shown
    assert "epoch 1.25  loss 2.0000  top-1 40.00 %  1,234 images/s" in shown
    assert "step 100: 45.68 % top-1\n" in shown
    assert "from elsewhere\n" in shown
    # No line of text as in a file.
    assert "step 100 of" not in shown


@pytest.mark.parametrize("width", [40, 80])
def test_all_numbers_fit_a_narrow_terminal(show, clock, width):
    progress, text = show(375_300, terminal=True, width=width)
    with progress:
        progress.update(1)
        clock.now = 3600.0
        progress.show_best(123_456, 45.678)
        progress.update(123_457, {**VALUES, "epoch": 98.76})
    last = text().split("\x1b[2K")[-1]
    lines = [re.sub("\x1b\\[.*?[a-zA-Z]", "", line).strip("\r ") for line in last.splitlines()]
    assert max(map(len, lines)) <= width and "…" not in last
    for number in ("epoch 98.76", "loss 2.0000", "top-1 40.00 %", "1,234 images/s", "33%", "2:02"):
        assert any(number in line for line in lines), number
    assert any("best 45.68 % at step 123,456" in line for line in lines)
    assert any("123457/375300" in line for line in lines)


def test_the_bar_is_taken_down_when_an_exception_passes(show):
    progress, text = show(terminal=True)
    stderr = sys.stderr
    with pytest.raises(KeyError), progress:
        raise KeyError
    assert sys.stderr is stderr
    assert text().endswith("\x1b[?25h")  # The cursor is visible again.


@pytest.mark.parametrize("terminal", [True, False])
def test_only_the_first_process_of_a_run_shows_anything(show, monkeypatch, terminal):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    progress, text = show(terminal=terminal)
    with progress:
        progress.update(1, VALUES)
        progress.message("text")
    assert text() == ""
