"""Whole training runs on the card: the share of the input, and a resume that ends alike."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.interrupted_run import newest_checkpoint, outcome
from benchmarks.photographs import photograph, write_folder
from benchmarks.slot.results import ROOT
from benchmarks.slot.sizes import Sizes, sizes
from deit_jax.models.registry import model_spec

_CLASSES = 8  # of `photographs`
_STEP_RATE = "step with augmentation, images/s"


def prepare(parts: Sequence[str], small: bool) -> Callable[[str], dict[str, Any]]:
    """Return the function from a part's name to its result."""
    chosen = sizes(small)
    folder = Path(tempfile.mkdtemp(prefix="deit_jax-slot-"))
    images = folder / "images"
    _make_images(images, chosen.images)
    rates: dict[str, float] = {}

    def measure(part: str) -> dict[str, Any]:
        do = {"input": _input, "training": _training, "resume": _resume}[part]
        result = do(chosen, images, folder / part)
        rates[part] = result.get(_STEP_RATE, 0.0)
        if part == "training" and rates.get("input"):
            # What is lost to a step that has its images at hand.
            result["share of the input"] = 1.0 - result["images/s"] / rates["input"]
        return result

    return measure


def _make_images(folder: Path, count: int) -> None:
    """Write photographs for training, and a few of them for evaluation."""
    write_folder(folder, min(count, _CLASSES), "val")
    for number in range(_CLASSES):
        (folder / "train" / f"class{number}").mkdir(parents=True)
    # Threads: Pillow and numpy leave Python to the others. A fork would inherit locks of JAX.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # All are asked for, so that one that could not be written is an error.
        list(pool.map(partial(_make_image, folder / "train"), range(count)))


def _make_image(folder: Path, number: int) -> None:
    place = folder / f"class{number % _CLASSES}" / f"{number:06}.jpeg"
    place.write_bytes(photograph(number))


def _flags(chosen: Sizes, images: Path, steps: int) -> list[str]:
    batch = chosen.batch
    epochs = steps * batch / chosen.images
    return [
        f"--config.model.name={chosen.model}",
        f"--config.model.num_classes={_CLASSES}",
        "--config.data.source=folder",
        f"--config.data.directory={images}",
        "--config.data.eval_split=val",
        f"--config.training.batch_size={batch}",
        f"--config.evaluation.batch_size={batch}",
        f"--config.evaluation.every_epochs={epochs}",
        f"--config.schedule.epochs={epochs}",
        "--config.schedule.warmup_epochs=0",
        f"--config.checkpoint.every_steps={steps}",
        f"--config.log.every_steps={max(1, steps // 3)}",
        "--config.log.tensorboard=false",
        f"--config.data.threads={len(os.sched_getaffinity(0))}",
        # All of a small batch is mixed together.
        *(["--config.mix.group=0"] if batch % 64 else []),
        f"--config.model.image_size={model_spec(chosen.model).image_size[0]}",
    ]


def _command(workdir: Path, flags: Sequence[str]) -> list[str]:
    train = [sys.executable, "train.py", "--config=configs/deit.py:small"]
    return [*train, f"--workdir={workdir}", *flags]


def _train(workdir: Path, flags: Sequence[str]) -> None:
    """Run train.py to its end; raises RuntimeError with the last line of what it said."""
    done = subprocess.run(_command(workdir, flags), cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise RuntimeError(f"train.py ended with code {done.returncode}: {said[0]}")


def _input(chosen: Sizes, images: Path, workdir: Path) -> dict[str, Any]:
    """Measure what the input delivers, and what the whole recipe's step takes, each alone."""
    command = [sys.executable, "-m", "deit_jax", "benchmark", "input", "--json"]
    command += ["--config=configs/deit.py:small", "--images=64", "--seconds=5", "--measure"]
    command += _flags(chosen, images, chosen.steps)
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    facts = json.loads(done.stdout)
    return {
        "what": f"{chosen.model} on JPEG files, the whole recipe",
        "input, images/s": facts["input_rate"],
        _STEP_RATE: facts["model_rate"],
        "cores": facts["cores"],
        "ms of a core for an image": facts["core_ms"],
    }


def _training(chosen: Sizes, images: Path, workdir: Path) -> dict[str, Any]:
    """Train, files and all, and say how fast the last third went."""
    _train(workdir, _flags(chosen, images, chosen.steps))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return {
        "what": f"train.py, {chosen.model}, batch {chosen.batch}, {chosen.steps} steps",
        "images/s": rates[-1],
        "images/s of the first third": rates[0],
        "last loss": [line["loss"] for line in lines if "loss" in line][-1],
    }


def _resume(chosen: Sizes, images: Path, workdir: Path) -> dict[str, Any]:
    """Train with `training.repeatable`, at one go and stopped after its first step; compare."""
    flags = [*_flags(chosen, images, chosen.resume_steps), "--config.training.repeatable=true"]
    _train(workdir / "whole", flags)
    stopped = _stop_after_first_step(workdir / "stopped", flags)
    _train(workdir / "stopped", flags)
    whole, resumed = outcome(workdir / "whole"), outcome(workdir / "stopped")
    differ = [key for key in whole if whole[key] != resumed[key]]
    return {
        "what": f"{chosen.resume_steps} steps of {chosen.model}, resumed after step {stopped}",
        "same weights to the bit": "yes" if whole["digest"] == resumed["digest"] else "no",
        "same metrics": "no: " + ", ".join(differ) if differ else "yes",
    }


def _stop_after_first_step(workdir: Path, flags: Sequence[str]) -> int:
    """Start train.py and send SIGTERM when it says that a step was taken; return what it saved."""
    process = subprocess.Popen(
        _command(workdir, flags),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    said = ""
    for said in process.stdout:
        if said.startswith("First step after"):
            process.send_signal(signal.SIGTERM)
    code = process.wait()
    if code == 0 or not newest_checkpoint(workdir):
        raise RuntimeError(f"train.py was not stopped: code {code}, {said.strip()}")
    return newest_checkpoint(workdir)
