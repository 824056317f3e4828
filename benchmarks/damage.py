"""Harm the newest checkpoint of a run of two processes, and see what a resume makes of it.

    python -m benchmarks.damage --harms 200 --resumes 12 --output runs/damage

The small run of `benchmarks.kills`, in two processes of two devices each, its state in four parts
(`mesh.fsdp=4`), is trained once. Copies of its checkpoints are then harmed: every other time a bit
is flipped, of a byte drawn from all of the newest checkpoint, or one of its files is cut off at a
random place. Two processes, with two devices each, open every copy as a resume does
(`benchmarks.opening_harmed`). A harm that no value depends on, and the files have such bytes, is
drawn again and counted apart. Some copies of the whole run are harmed likewise and trained to the
end by `train.py`; their ends are compared with that of the first, to the bit. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.interrupted_run import ROOT, make_images, outcome
from benchmarks.opening_harmed import harm, saved
from benchmarks.starts_together import Together, free_address

PROCESSES, DEVICES = 2, {"JAX_NUM_CPU_DEVICES": "2"}
FLAGS = ("--config.mesh.fsdp=4", "--config.checkpoint.keep_latest=4")


@dataclass
class Resumes:
    """What came of harmed runs that were trained to the end."""

    runs: int = 0
    rolled_back: int = 0
    problems: list[str] = field(default_factory=list)


def trained(folder: Path) -> Path:
    """Train the run, unless it is there, and return its directory."""
    workdir = folder / "run"
    if not (workdir / "result.json").is_file():
        make_images(folder / "images")
        together = Together(workdir, PROCESSES, 0, FLAGS, **DEVICES)
        together.end_by(600)
        if any(member.code for member in together.members):
            raise RuntimeError("\n".join(member.output for member in together.members))
    return workdir


def open_harmed(workdir: Path, harms: int, seed: int) -> list[dict[str, Any]]:
    """Harm copies of the checkpoints and open each in two processes; return what was found."""
    address, report = free_address(), workdir.with_name("opened.json")
    words = [str(workdir), str(harms), str(seed), address, str(report)]
    readers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.opening_harmed", str(index), *words],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **DEVICES},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(PROCESSES)
    ]
    said = [reader.communicate()[1] for reader in readers]
    if any(reader.returncode for reader in readers):
        raise RuntimeError("\n".join(said))
    return json.loads(report.read_text())


def resume_harmed(workdir: Path, count: int, seed: int) -> Resumes:
    """Harm copies of the run as it was before its last save, and train each to the end."""
    expected, draws, found = outcome(workdir), random.Random(f"{seed} resumes"), Resumes()
    for number in range(count):
        copy = workdir.with_name(f"resumed-{number}")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(workdir, copy)
        (copy / "result.json").unlink()
        shutil.rmtree(copy / "checkpoints" / str(saved(copy)[-1]))
        newest = saved(copy)[-1]
        how = harm(copy / "checkpoints" / str(newest), number, draws)
        together = Together(copy, PROCESSES, 0, FLAGS, **DEVICES)
        together.end_by(600)
        said = "\n".join(member.output for member in together.members)
        codes = [member.code for member in together.members]
        aside = (copy / "checkpoints" / f"{newest}.corrupt").is_dir()
        found.runs += 1
        found.rolled_back += aside
        right = not any(codes) and outcome(copy) == expected
        if not right or aside != (f"Set checkpoint {newest} aside" in said):
            found.problems.append(f"{how}: codes {codes}, set aside {aside}\n{said[-3000:]}")
        else:
            shutil.rmtree(copy)
        print(f"resume {number}: {how}: set aside {aside}, right {right}", flush=True)
    return found


def main() -> int:
    """Harm, open, resume; print what came of it; 1 if a wrong value was taken for a right one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--harms", type=int, default=200, help="that matter, opened only")
    parser.add_argument("--resumes", type=int, default=12, help="trained to the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/damage"))
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    workdir = trained(folder)
    opened = open_harmed(workdir, arguments.harms, arguments.seed)
    for kind in ("bit flipped", "cut off"):
        of_kind = [one for one in opened if one["kind"] == kind]
        counts = Counter(one["outcome"] for one in of_kind)
        reasons = Counter(one["reason"] for one in of_kind if one["reason"])
        print(f"{kind}: {dict(counts)}; said: {dict(reasons)}")
    resumes = resume_harmed(workdir, arguments.resumes, arguments.seed)
    print(
        f"{resumes.runs} harmed runs trained to the end, {resumes.rolled_back} from the checkpoint "
        f"before; {len(resumes.problems)} with another end or unreported"
    )
    wrong = [str(one) for one in opened if one["outcome"] == "wrong"] + resumes.problems
    (folder / "problems.txt").write_text("\n\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
