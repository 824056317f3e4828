import re

import pytest

from benchmarks import labels

pytestmark = pytest.mark.usefixtures("quick_compilation", "on_devices")

_MICRO = ["--students", "deit_micro_distilled_patch4_16", "--teacher", "regnety_micro"]
_SMALL = ["--image-size", "16", "--batch-size", "4", "--dtype", "float32"]


@pytest.mark.slow
def test_the_three_ways_take_turns(tmp_path, capsys):
    path = tmp_path / "page.md"
    assert labels.main([*_MICRO, *_SMALL, "--rounds", "1", "--markdown", str(path)]) == 0
    page = path.read_text()
    assert page.strip() == capsys.readouterr().out.strip()
    rows = re.findall(r"^\| deit_micro\S+ \| (.+?) \|.*\| (\S+ \(.+?\)) \| \d+ % \|$", page, re.M)
    assert [name for name, _ in rows] == ["teacher inside", "filling", "reading"]
    assert rows[0][1].startswith("1 (1-1)")


def test_images_that_patches_do_not_fit_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        labels.main([*_MICRO, "--image-size", "17"])
    assert "cannot be cut into 4x4 patches" in capsys.readouterr().err


def test_a_batch_that_cannot_be_split_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        labels.main([*_MICRO, *_SMALL[:2], "--batch-size", "3"])
    assert "pass a multiple of 2 as --batch-size" in capsys.readouterr().err
