"""One start of a small training run that is to be interrupted, and what can be seen of it after."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
BATCH_SIZE = 32
EXPERIMENT = "configs/digits.py:none"
FLAGS = (
    "--config.data.source=folder",
    "--config.data.eval_split=val",
    "--config.data.train_images=0",
    "--config.model.name=deit_micro_patch4_16",
    "--config.model.num_classes=4",
    f"--config.training.batch_size={BATCH_SIZE}",
    "--config.schedule.epochs=30",
    "--config.schedule.warmup_epochs=2",
    "--config.evaluation.batch_size=256",
    "--config.evaluation.every_epochs=12",
    "--config.checkpoint.every_steps=20",
    # The log then tells every step that was taken.
    "--config.log.every_steps=1",
    "--config.log.tensorboard=False",
)
IMAGES = {"train": 96, "val": 256}
# A shell's background jobs are started with SIGINT ignored, which is inherited.
_AS_FROM_A_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_TOKEN = "DEIT_JAX_FAULTS"
_SHARED = Path("/dev/shm")


class Start:
    """One start of `train.py`: the process, its descendants, the shared memory they use."""

    def __init__(
        self, workdir: Path, workers: int, flags: Sequence[str] = (), **environment: str
    ) -> None:
        """Start it; images and compilation cache are shared with the runs beside it."""
        self.workdir = workdir
        images, cache = workdir.with_name("images"), workdir.with_name("cache")
        self.token = uuid.uuid4().hex
        self.temporary = workdir.with_name(f"{workdir.name}.temporary")
        self.temporary.mkdir(parents=True, exist_ok=True)
        self._segments: set[str] = set()
        command = [
            "train.py",
            f"--config={EXPERIMENT}",
            f"--workdir={workdir}",
            f"--config.data.directory={images}",
            f"--config.data.workers={workers}",
            *FLAGS,
            *flags,
        ]
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AS_FROM_A_TERMINAL, *command],
            cwd=ROOT,
            env={
                **os.environ,
                _TOKEN: self.token,
                "TMPDIR": str(self.temporary),
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, moment: float | None) -> tuple[bool, float]:
        """Wait for the moment, if it does not end before; return whether it hit, and seconds."""
        try:
            self._output, _ = self._process.communicate(timeout=moment)
            return False, time.monotonic() - self._begin
        except subprocess.TimeoutExpired:
            self._look_at_shared_memory()
            return True, time.monotonic() - self._begin

    def interrupt(self, number: signal.Signals, everywhere: bool) -> float:
        """Send the signal; return the seconds until the process had ended."""
        begin = time.monotonic()
        if everywhere:
            os.killpg(self._process.pid, number)
        else:
            self.send(number)
        self.collect(600)
        return self.ended - begin

    def send(self, number: signal.Signals) -> None:
        """Send the main process a signal, if it lives."""
        self._process.send_signal(number)

    def collect(self, seconds: float) -> None:
        """Wait until the process has ended; end it where it does not within so many seconds."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
        self.ended = time.monotonic()
        # Descendants that live on would hold the pipe open: this is what is looked for.
        self.left_processes = self._wait_for_descendants()
        self._output = self._process.communicate()[0]

    @property
    def pid(self) -> int:
        """Number of the main process."""
        return self._process.pid

    @property
    def code(self) -> int:
        """Exit code; below 0 the signal that it died of."""
        return self._process.returncode

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._output

    def left_segments(self) -> list[str]:
        """Names in /dev/shm that this start used and that are there still."""
        prefixes = {name.rpartition("-")[0] for name in self._segments if "deit_jax-" in name}
        there = {path.name for path in _SHARED.iterdir()}
        started = {name for name in there if any(name.startswith(prefix) for prefix in prefixes)}
        return sorted((self._segments & there) | started)

    def _look_at_shared_memory(self) -> None:
        for process in self._descendants():
            try:
                maps = (process / "maps").read_text()
            except OSError:
                continue
            self._segments |= set(re.findall(r"/dev/shm/(\S+)", maps))

    def _descendants(self) -> Iterator[Path]:
        wanted = f"{_TOKEN}={self.token}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    yield process
            except OSError:
                continue

    def _wait_for_descendants(self, seconds: float = 10.0) -> int:
        """Return how many live on; they are ended, so that they do not disturb the next start."""
        deadline = time.monotonic() + seconds
        while (living := list(self._descendants())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in living:
            # Unless it has just ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        return len(living)


def make_images(folder: Path) -> None:
    """Write noise in four classes."""
    noise = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for number in range(count):
            path = folder / split / "abcd"[number % 4] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (24, 20, 3), np.uint8)).save(path)


def outcome(workdir: Path) -> dict:
    """Return what must be the same: digest, evaluations, and every line of the log."""
    result = json.loads((workdir / "result.json").read_text())
    kept = {key: result[key] for key in ("steps", "digest", "evaluation", "best", "skipped_steps")}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("images_per_second", "input_wait"):
            line.pop(name, None)
    return {**kept, "lines": lines}


def steps_taken(workdir: Path) -> int:
    """Return the last step that the log has a whole line of; 0 without any."""
    steps = [0]
    if (workdir / "metrics.jsonl").is_file():
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            try:
                steps.append(json.loads(line)["step"])
            except ValueError:
                continue
    return max(steps)


def newest_checkpoint(workdir: Path) -> int:
    """Return the newest step on disk; 0 without any."""
    names = [path.name for path in workdir.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def temporary_files(workdir: Path) -> list[str]:
    """Files of a finished run that nobody needs, in its directory and in TMPDIR."""
    in_run = [
        path for path in workdir.rglob("*") if re.search(r"tmp|temp|trash|partial", path.name)
    ]
    others = list(workdir.with_name(f"{workdir.name}.temporary").iterdir())
    return [str(path) for path in (*in_run, *others)]
