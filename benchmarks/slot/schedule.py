"""One question after the other until the time is over; whatever was answered by then is on disk."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.slot import results
from benchmarks.slot.tasks import Task

_TELLING = re.compile(r"Check failed|[A-Z]\w*(Error|Exception): |^F\d{4} |FATAL|RESOURCE_EXHAUSTED")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its code, the line that says why, and whether it was stopped."""

    code: int
    line: str = ""
    stopped: bool = False


Start = Callable[[Task, Sequence[str], float], Ended]
"""Runs a task's parts in a process of their own, for so many seconds at most."""


@dataclass
class Schedule:
    """What is measured, where it is written, and until when.

    Attributes:
        path: of the results.
        stamp: what every record of this slot says: slot, card, small, machine.
        versions: of the packages here.
        deadline: on `clock`.
        past: records of earlier slots.
        again: measure what was measured before, too.
        start: runs a task.
        clock: seconds.
        say: shows a line.
    """

    path: Path
    stamp: dict[str, Any]
    versions: dict[str, str]
    deadline: float
    past: list[results.Record]
    again: bool
    start: Start
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = print

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - self.clock()

    def run(self, tasks: Sequence[Task]) -> None:
        """Measure what is not known yet, in order, as far as the time allows."""
        for task in tasks:
            self._run_task(task)

    def _run_task(self, task: Task) -> None:
        known = set() if self.again else self._known(task)
        wanted = [part for part in task.parts if part not in known]
        if known:
            self.say(f"{task.name}: measured before: {', '.join(sorted(known))}")
        if wanted and (missing := task.missing()):
            self._skip(task, wanted, f"needs {', '.join(missing)}, not installed")
            return
        while wanted:
            fitting = _fitting(task, wanted, self.left())
            if not fitting:
                needed = task.estimate(wanted[:1])
                self._skip(task, wanted, f"takes about {needed:.0f} s, {self.left():.0f} s left")
                return
            seconds = min(task.limit(fitting), self.left())
            self.say(f"{task.name}: {', '.join(fitting)} (about {task.estimate(fitting):.0f} s)")
            begin = self.clock()
            ended = self.start(task, fitting, seconds)
            done = {r["part"] for r in self._here() if r["name"] == task.name}
            failed = [part for part in fitting if part not in done][:1]
            for part in failed:
                # The process died of it; the parts after it get one of their own.
                line = _why(ended, self.clock() - begin)
                self._write(task, part, {"error": line})
                self.say(f"{task.name}, {part}: {line}")
            wanted = [part for part in wanted if part not in done and part not in failed]

    def _known(self, task: Task) -> set[str]:
        versions = {name: self.versions[name] for name in task.packages}
        return set(task.parts) & results.measured(
            self.past,
            task.name,
            card=self.stamp["card"],
            code=results.digest(task.all_sources()),
            versions=versions,
            small=self.stamp["small"],
        )

    def _here(self) -> list[results.Record]:
        """What this slot has written so far."""
        return [r for r in results.read(self.path) if r["slot"] == self.stamp["slot"]]

    def _skip(self, task: Task, parts: Sequence[str], why: str) -> None:
        self.say(f"{task.name}: {', '.join(parts)} left out: {why}")
        for part in parts:
            self._write(task, part, {"skipped": why})

    def _write(self, task: Task, part: str, what: dict[str, str]) -> None:
        results.append(self.path, record(task, part, self.stamp, self.versions) | what)


def record(
    task: Task, part: str, stamp: dict[str, Any], versions: dict[str, str]
) -> results.Record:
    """Return a record that still lacks its result."""
    return {
        "name": task.name,
        "part": part,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **stamp,
        "code": results.digest(task.all_sources()),
        "versions": versions,
    }


def _fitting(task: Task, parts: Sequence[str], seconds: float) -> list[str]:
    """Return the parts, in order, that should be done within so many seconds."""
    fitting: list[str] = []
    for part in parts:
        if task.estimate([*fitting, part]) <= seconds:
            fitting.append(part)
    return fitting


def _why(ended: Ended, seconds: float) -> str:
    if ended.stopped:
        return f"stopped after {seconds:.0f} s, its limit"
    return f"its process ended with code {ended.code}: {ended.line or 'without a word'}"


def telling_line(text: str) -> str:
    """Return the line of a process's errors that says most about its end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or [""])[-1][:300]


def start_process(
    task: Task,
    parts: Sequence[str],
    seconds: float,
    *,
    request: dict[str, Any],
    environment: dict[str, str],
) -> Ended:
    """Run `benchmarks.slot.worker`; stop it and all that it started when its time is over.

    Args:
        task: the question.
        parts: of it.
        seconds: its limit.
        request: the rest of what the worker is told.
        environment: of the process.
    """
    asked = json.dumps({"name": task.name, "parts": list(parts), **request})
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.slot.worker", asked],
            # The worker ends when this is closed: also if nobody lives to tell it.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=results.ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(max(seconds, 0.0))
            stopped = False
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            # What the worker had started and left, too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        return Ended(process.returncode, telling_line(errors.read()), stopped)
