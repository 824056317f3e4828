import dataclasses

import pytest

from benchmarks import kept_memory
from benchmarks.cases import Case

CASE = Case("deit_micro_patch4_16", "train", 4, "float32")


def test_a_row_is_compared_with_the_first_round_by_round():
    seconds = [2.0, 3.0, 8.0]
    first = kept_memory._Stepper(1, False, None, faults=[7.0, 9.0, 8.0])
    kept = dataclasses.replace(first, kept=True, faults=[0.0] * 3)
    row = kept_memory._row(CASE, kept, [1.0, 1.0, 2.0], seconds)
    assert row == ["float32", "1", "kept", "1000 (1000-2000)", "3.00 (2.00-4.00)", "0", "0"]
    assert kept_memory._row(CASE, first, seconds, seconds)[4:6] == ["1.00 (1.00-1.00)", "8"]


@pytest.mark.full
def test_kept_memory_is_mapped_once(monkeypatch):
    """A step of this case has intermediate results of some 100 MB, 25,000 pages."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    case = dataclasses.replace(CASE, batch_size=512)
    as_it_is, kept = kept_memory._measure(case, [1], rounds=3)
    assert int(as_it_is[5].replace(",", "")) > 20 * int(kept[5].replace(",", "")) + 1000


def test_what_cannot_be_measured_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        kept_memory.main(["--batch-size", "6", "--micro-batches", "4"])
    assert "choose --micro-batches that divide" in capsys.readouterr().err
