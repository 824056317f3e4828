"""Loss not finite for too long: back to a checkpoint, and on with the images that come next.

What makes it so is an image. All are black but one, pixels are divided by very little, and the
weights of patches are so large that what is not black overflows.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from configs.digits import get_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.fingerprint import digest
from deit_jax.runs.interruption import Interruption
from deit_jax.sharding import put_batch
from deit_jax.training import setup as setups
from deit_jax.training.initial import load_initial
from deit_jax.training.loop import train
from deit_jax.training.roll_backs import RollBack, RollBacks
from deit_jax.training.skipped_steps import TrainingStopped
from deit_jax.training.stretch import Stretch
from tests import program
from tests.config.reduced import save_weights
from tests.training.test_refusals import small

MODEL = "deit_micro_patch4_16"
IMAGES, BATCH, STEPS = 24, 4, 10
# In the order of seed 0 it is in these batches of the stream, counted from 0.
WHITE, IN_BATCHES = 14, [4, 9]
# A checkpoint every two steps. Step 5 takes batch 4: back to 4, and step 5 takes batch 5. Step 9
# then takes batch 9: back to 8.
ROLL_BACKS = [{"failed_at": 5, "back_to": 4}, {"failed_at": 9, "back_to": 8}]
LEARNED_FROM = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", IMAGES), ("val", 10)):
        for number in range(count):
            path = folder / split / "abcdefghij"[10 * number // count] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            white = 255 * (split == "train" and number == WHITE)
            Image.fromarray(np.full((16, 16, 3), white, np.uint8)).save(path)
    weights = load_file(save_weights(folder, MODEL))
    weights["patch_embed.proj.weight"] *= 1000
    save_file(weights, folder / "large.safetensors")
    return folder


def configure(images, **changes):
    given = {
        "data__source": "folder",
        "data__directory": str(images),
        "data__eval_split": "val",
        "data__train_images": 0,
        "mix__mixup_alpha": 0.0,
        "mix__cutmix_alpha": 0.0,
        "model__weights": str(images / "large.safetensors"),
        "augment__mean": (0.0, 0.0, 0.0),
        "augment__std": (2e-38, 2e-38, 2e-38),
        "training__batch_size": BATCH,
        "training__max_skipped_steps": 1,
        "training__roll_backs": 2,
        "evaluation__batch_size": 10,
        "evaluation__every_epochs": 1.0,
        "checkpoint__every_steps": 2,
        "schedule__epochs": STEPS * BATCH / IMAGES,
    }
    return small(**given | changes)


@cache
def digest_of_what_was_learned(images):
    """Of the weights after steps with the batches of `LEARNED_FROM`."""
    setup = setups.set_up(configure(images))
    state = setup.initial_state(load_initial(setup.config, setup.abstract_state))
    with setups.train_batches(setup.train_source, setup.train_input, num_steps=20) as stream:
        for number in range(max(LEARNED_FROM) + 1):
            batch = next(stream)
            assert (batch["image"].max() > 0) == (number in IN_BATCHES)
            if number in LEARNED_FROM:
                state = setup.train_step(state, {}, put_batch(batch, setup.mesh))
    return digest({name: state[name] for name in ("params", "batch_stats", "ema")})


class Snapshots(Interruption):
    """Copies a run's directory, which is what a SIGKILL leaves, when a step begins again."""

    def __init__(self, workdir):
        super().__init__()
        self.workdir, self.begun, self.copies = workdir, set(), []

    def begin(self, step):
        if step in self.begun:
            self.copies.append(self.workdir.with_name(f"killed-{len(self.copies)}"))
            shutil.copytree(self.workdir, self.copies[-1])
        self.begun.add(step)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_a_run_goes_back_and_on_and_its_bits_do_not_depend_on_kills(images, tmp_path, capsys):
    config, workdir = configure(images), tmp_path / "run"
    snapshots = Snapshots(workdir)
    result = train(config, str(workdir), interruption=snapshots)
    assert result["roll_backs"] == ROLL_BACKS and result["skipped_steps"] == 0
    assert result["digest"] == digest_of_what_was_learned(images)
    assert "step 5: going back to the checkpoint of step 4" in capsys.readouterr().out
    rows = [row for row in program.metrics(workdir) if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["roll_backs"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 2
    assert len(snapshots.copies) == 2
    for copy in snapshots.copies:
        again = train(config, str(copy))
        for key in ("digest", "roll_backs", "skipped_steps", "evaluation", "best"):
            assert again[key] == result[key]
        assert program.metrics(copy) == program.metrics(workdir)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_where_it_may_not_go_back_it_stops_and_more_can_be_allowed(images, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(TrainingStopped, match=r"up to step 9\. .*1 time.*larger training.roll_b"):
        train(configure(images, training__roll_backs=1), str(workdir))
    assert not (workdir / "result.json").exists()
    result = train(configure(images), str(workdir))
    assert result["digest"] == digest_of_what_was_learned(images)


def test_labels_are_asked_for_by_their_place_in_the_stream():
    asked = []
    lessons = SimpleNamespace(take=lambda position, *_: asked.append(position))
    recorder = SimpleNamespace(roll_backs=RollBacks({"roll_backs": ROLL_BACKS}))
    stretch = SimpleNamespace(setup=SimpleNamespace(lessons=lessons), recorder=recorder, state={})
    Stretch.take(stretch, STEPS, {})
    assert asked == LEARNED_FROM[-1:]


# The place is asked for above, and read from in test_lessons.py.
@pytest.mark.full
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_kept_labels_are_those_of_the_stream(images, tmp_path):
    teacher = {
        "distillation__kind": "hard",
        "teacher__weights": save_weights(tmp_path, "regnety_micro"),
    }
    inside = train(configure(images, **teacher), str(tmp_path / "inside"))
    # A run that skips the two steps asks about the first ten batches.
    kept = configure(images, **teacher, teacher__labels=str(tmp_path / "labels"))
    kept.training.max_skipped_steps = 2
    assert train(kept, str(tmp_path / "first"))["skipped_steps"] == 2
    kept.training.max_skipped_steps = 1
    result = train(kept, str(tmp_path / "run"))
    assert result["roll_backs"] == inside["roll_backs"] == ROLL_BACKS
    # Compiled apart and without optimisation, roundings differ: a few of losses of about 2.
    losses = [
        [row["loss"] for row in program.metrics(tmp_path / name) if row["split"] == "train"]
        for name in ("inside", "run")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    # Batches 10 and 11 no run had come to.
    assert (result["labels"]["computed"], result["labels"]["read"]) == (2, 10)


@pytest.mark.full
@pytest.mark.parametrize("split", [1, 2])
def test_two_processes_go_back_together(images, tmp_path, split):
    usual = leaves_by_key(get_config("none"))
    flags = [
        f"--config.{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key, value in leaves_by_key(configure(images, mesh__fsdp=split)).items()
        if value != usual[key]
    ]
    workdir = tmp_path / "run"
    train_ = ["train.py", "--config=configs/digits.py:none", f"--workdir={workdir}", *flags]
    ended = subprocess.run(
        [sys.executable, "-m", "deit_jax", "launch", "-n", "2", "--", *train_],
        cwd=program.ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    result = program.result(workdir)
    assert result["roll_backs"] == ROLL_BACKS and result["skipped_steps"] == 0
    rows = [row for row in program.metrics(workdir) if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_the_checkpoint_that_was_no_good_start_is_not_taken_again(images, tmp_path):
    config = setups.Config.of(configure(images, training__roll_backs=9))
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4, 6, 8):
        (tmp_path / str(step)).mkdir()
    first = RollBack(failed_at=9, back_to=6)
    # Steps 7 to 9 were not finite: 8 is in doubt.
    assert RollBacks({}).due(config, checkpoints, 9, 3) == first
    # Where there is none to go back to, neither is said to be good nor that more would help.
    with pytest.raises(TrainingStopped, match="No checkpoint from before them") as stopped:
        RollBacks({}).due(config, checkpoints, 2, 1)
    assert "roll_backs" not in str(stopped.value) and "is good" not in str(stopped.value)
    checkpoints.abandon_after(6)
    assert saved_steps(tmp_path) == [2, 4, 6] and (tmp_path / "8.abandoned").is_dir()
    again = RollBacks(RollBacks({}).notes(first))
    assert again.left_out == 3
    assert again.due(config, checkpoints, 7, 1) == RollBack(failed_at=7, back_to=4)
    assert again.due(config, checkpoints, 7, 0) is None
    # Nothing else is there.
    shutil.rmtree(tmp_path / "4")
    shutil.rmtree(tmp_path / "2")
    assert again.due(config, checkpoints, 7, 1) == RollBack(failed_at=7, back_to=6)
