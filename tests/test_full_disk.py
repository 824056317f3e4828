"""A run on a disk that fills up ends with sentences that name files, and goes on with room."""

import os
import subprocess

import pytest

from tests import program

pytestmark = pytest.mark.full

# A log of 8 steps, one checkpoint of about 2.5 MB in the middle and one at the end.
SHORT = (
    "--config.model.name=deit_micro_distilled_patch4_16",
    "--config.data.train_images=100",
    "--config.training.batch_size=32",
    "--config.schedule.epochs=2.6",
    "--config.schedule.warmup_epochs=1",
    "--config.checkpoint.every_steps=4",
    "--config.log.every_steps=1",
)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, into which one checkpoint goes."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.timeout(900)
def test_a_full_disk_ends_a_run_in_sentences_and_room_lets_it_go_on(small_disk):
    workdir = small_disk / "run"
    code, output = program.run("configs/digits.py:none", workdir, *SHORT)
    assert code == 2, output
    assert "Traceback" not in output
    assert f"A checkpoint was not saved: {workdir}/checkpoints/8: No space left on" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(workdir) in last
    left = [name for _, _, names in os.walk(small_disk) for name in names]
    assert not [name for name in left if "tmp" in name or "partial" in name]
    assert os.listdir(workdir / "checkpoints") == ["4"]
    # As on a disk with enough room from the start: the same bits and the same log.
    command = ["mount", "-o", "remount,size=40m", str(small_disk)]
    subprocess.run(command, check=True)
    again, _ = program.run("configs/digits.py:none", workdir, *SHORT)
    whole, _ = program.run("configs/digits.py:none", small_disk / "whole", *SHORT)
    assert (again, whole) == (0, 0)
    assert program.metrics(workdir) == program.metrics(small_disk / "whole")
    assert program.result(workdir)["digest"] == program.result(small_disk / "whole")["digest"]
