"""One of two processes that open harmed copies of a run's checkpoints, as a resume does.

Started by `benchmarks.damage`. Process 0 makes each copy and harms it; both restore; each compares
the bits of its part of every array with those that were read from the sound checkpoint.
"""

import hashlib
import json
import logging
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.processes import all_processes
from deit_jax.training.setup import set_up


def saved(workdir: Path) -> list[int]:
    """Return the steps of a run's checkpoints, oldest first."""
    return saved_steps(workdir / "checkpoints")


def harm(checkpoint: Path, number: int, draws: random.Random) -> dict[str, str]:
    """Flip a bit of a checkpoint, or cut a file of it off; return which and where."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    if number % 2 == 0:
        file = draws.choices(files, sizes)[0]
        content = bytearray(file.read_bytes())
        place = draws.randrange(len(content))
        content[place] ^= 1 << draws.randrange(8)
        kind = "bit flipped"
    else:
        file = draws.choice([file for file, size in zip(files, sizes, strict=True) if size])
        content = bytearray(file.read_bytes())
        place = draws.randrange(len(content))
        del content[place:]
        kind = "cut off"
    file.write_bytes(content)
    return {"kind": kind, "where": f"{file.relative_to(checkpoint)} at {place}"}


class _Said(logging.Handler):
    """Keeps what is said while a copy is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Opener:
    """Opens copies of one run's newest two checkpoints."""

    def __init__(self, workdir: Path) -> None:
        """Read what is in them while they are sound; the newest first."""
        config = json.loads((workdir / "config.json").read_text())["config"]
        self._abstract = set_up(ConfigDict(config)).abstract_state
        self._copy = workdir.with_name("opened")
        self._said = _Said()
        logging.getLogger("deit_jax").addHandler(self._said)
        self._source = workdir / "checkpoints"
        self._before, self._newest = saved(workdir)[-2:]
        self._truth = {}
        for step in (self._newest, self._before):
            self._fresh([step])
            self._truth[step] = self._restore()[1]

    def open(self, number: int, draws: random.Random) -> dict[str, Any]:
        """Harm a fresh copy and open it; return what was done and what came of it."""
        self._fresh([self._before, self._newest])
        how = (
            harm(self._copy / str(self._newest), number, draws) if jax.process_index() == 0 else {}
        )
        multihost_utils.sync_global_devices("harmed")
        self._said.lines.clear()
        step, bits = self._restore()
        right = all_processes(bits == self._truth[step])
        told = [line for line in self._said.lines if f"Set checkpoint {self._newest} aside" in line]
        aside = (self._copy / f"{self._newest}.corrupt").is_dir()
        outcome = "wrong"
        if right and step == self._newest and not told and not aside:
            outcome = "no value depends on it"
        elif right and step == self._before and len(told) == 1 and aside:
            outcome = "detected, rolled back, reported"
        return {**how, "outcome": outcome, "reason": _kind_of(told)}

    def _fresh(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(self._copy, ignore_errors=True)
            for step in steps:
                shutil.copytree(self._source / str(step), self._copy / str(step))
        multihost_utils.sync_global_devices("copied")

    def _restore(self) -> tuple[int, str]:
        restored = Checkpoints(self._copy).restore_latest(self._abstract)
        assert restored is not None
        total = hashlib.sha256()
        for leaf in jax.tree.leaves(restored.state):
            for shard in leaf.addressable_shards:
                total.update(jax.device_get(shard.data).tobytes())
        return restored.step, total.hexdigest()


def _kind_of(told: list[str]) -> str:
    """Return what a reason is of, without names and numbers."""
    if not told:
        return ""
    words = ("fingerprint", "cannot read its part", "manifest", "cannot be read")
    return next((word for word in words if word in told[0]), told[0])


def main() -> None:
    """Open harmed copies until so many harms mattered; process 0 writes what it found."""
    index, workdir, harms, seed, address, report = sys.argv[1:]
    jax.distributed.initialize(address, 2, int(index), coordinator_bind_address=address)
    opener, draws = Opener(Path(workdir)), random.Random(seed)
    found: list[dict[str, Any]] = []
    mattered = 0
    while mattered < int(harms):
        found.append(opener.open(len(found), draws))
        # The same on both processes, but for what only process 0 is told.
        mattered += found[-1]["outcome"] != "no value depends on it"
    if int(index) == 0:
        Path(report).write_text(json.dumps(found, indent=1))
    multihost_utils.sync_global_devices("done")


if __name__ == "__main__":
    main()
