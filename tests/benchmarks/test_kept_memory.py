import dataclasses

import pytest

from benchmarks import kept_memory
from benchmarks.cases import Case

CASE = Case("deit_micro_patch4_16", "train", 4, "float32")


def test_the_first_row_is_compared_with_each_round_by_round():
    seconds = [1.0, 1.0, 2.0]
    first = kept_memory._Stepper("deit_jax", 1, True, None, faults=[0.0] * 3)
    other = dataclasses.replace(first, name="torch", kept=False, faults=[7.0, 9.0, 8.0])
    row = kept_memory._row(CASE, other, [2.0, 3.0, 8.0], seconds)
    assert row[:4] == ["float32", "torch", "1", "as it is"]
    assert row[4:] == ["3000 (2000-8000)", "3.00 (2.00-4.00)", "8", "0"]
    assert kept_memory._row(CASE, first, seconds, seconds)[5:7] == ["1.00 (1.00-1.00)", "0"]


@pytest.mark.full
def test_kept_memory_is_mapped_once():
    """A step of this case has intermediate results of some 100 MB, 25,000 pages."""
    case = dataclasses.replace(CASE, batch_size=512)
    kinds = [("deit_jax", 1, kept) for kept in (True, False)]
    rows = kept_memory._measure(case, kinds, rounds=3)
    kept, as_it_is = (int(row[6].replace(",", "")) for row in rows)
    assert as_it_is > 20 * kept + 1000


def test_what_cannot_be_measured_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        kept_memory.main(["--batch-size", "6", "--micro-batches", "4"])
    assert "choose --micro-batches that divide" in capsys.readouterr().err


def test_all_that_is_measured_computes_on_the_processor(monkeypatch):
    """With a GPU beside it PyTorch would take that one."""
    monkeypatch.setattr(kept_memory.subprocess, "Popen", lambda command, **rest: rest["env"])
    environment = kept_memory._start(CASE, "torch", 1, False).process
    assert environment["JAX_PLATFORMS"] == "cpu" and environment["CUDA_VISIBLE_DEVICES"] == ""
