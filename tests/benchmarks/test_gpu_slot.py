import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from benchmarks import gpu_slot
from benchmarks.slot import page, results
from benchmarks.slot.predicted import H200, predicted_table
from benchmarks.slot.profile import read_kernels, table
from benchmarks.slot.schedule import Ended, Schedule, record, start_process, telling_line
from benchmarks.slot.tasks import TASKS, Task, task

ROOT = Path(__file__).parents[2]
VERSIONS = {"jax": "1", "jaxlib": "1", "torch": "1", "timm": "1"}
STAMP = {"slot": "now", "card": "a card", "small": False, "machine": {}}
FIRST = Task("first", "one", "sizes", {"a": 10, "b": 20, "c": 5}, start=5)
SECOND = Task("second", "two", "sizes", {"d": 10}, start=5)


class Machine:
    """Measures in no time at all; its clock moves by what each part takes."""

    def __init__(self, path, takes, dies=()):
        self.path, self.takes, self.dies, self.now, self.starts = path, takes, dies, 0.0, []

    def start(self, task, parts, seconds):
        self.starts.append((task.name, list(parts), seconds))
        end = self.now + seconds
        for part in parts:
            if part in self.dies:
                return Ended(-6, "Check failed: no")
            if self.now + self.takes[part] > end:
                self.now = end
                return Ended(-9, stopped=True)
            self.now += self.takes[part]
            line = record(task, part, STAMP, VERSIONS) | {"result": {"ms": 1.0}}
            results.append(self.path, line)
        return Ended(0)

    def schedule(self, seconds, past=(), again=False):
        return Schedule(
            self.path,
            STAMP,
            VERSIONS,
            seconds,
            list(past),
            again,
            self.start,
            clock=lambda: self.now,
            say=lambda line: None,
        )

    def ends(self):
        kinds = ("result", "error", "skipped")
        return {
            r["part"]: next((r[k] if k != "result" else "result") for k in kinds if k in r)
            for r in results.read(self.path)
        }


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    machine = Machine(tmp_path / "r", {"a": 10, "b": 20, "c": 5, "d": 10})
    machine.schedule(36).run([FIRST, SECOND])
    # b would need 5 + 10 + 20 with a before it: 35 of 36; then there is too little left for c.
    assert machine.starts[0][:2] == ("first", ["a", "b"])
    ends = machine.ends()
    assert ends["a"] == ends["b"] == "result"
    assert ends["c"] == "takes about 10 s, 6 s left" and "takes about 15 s" in ends["d"]


def test_a_part_that_ends_its_process_costs_the_others_nothing(tmp_path):
    machine = Machine(tmp_path / "r", {"a": 10, "b": 20, "c": 5, "d": 10}, dies=["b"])
    machine.schedule(540).run([FIRST, SECOND])
    assert [parts for _, parts, _ in machine.starts] == [["a", "b", "c"], ["c"], ["d"]]
    ends = machine.ends()
    assert ends.pop("b") == "its process ended with code -6: Check failed: no"
    assert set(ends.values()) == {"result"}


def test_each_process_has_a_limit_within_the_slot(tmp_path):
    machine = Machine(tmp_path / "r", {"a": 1000, "b": 20, "c": 5, "d": 10})
    machine.schedule(200).run([FIRST, SECOND])
    assert machine.starts[0][2] == FIRST.limit("abc") == 110
    assert machine.ends()["a"] == "stopped after 110 s, its limit"
    assert all(seconds <= 200 for *_, seconds in machine.starts)
    assert {machine.ends()[part] for part in "bcd"} == {"result"}


def test_what_was_measured_is_not_measured_again(tmp_path):
    first = Machine(tmp_path / "r", {"a": 1, "b": 1, "c": 1})
    first.schedule(20).run([FIRST])
    past = results.read(tmp_path / "r")
    assert [r["part"] for r in past if "result" in r] == ["a", "c"]

    def starts(past, **options):
        machine = Machine(tmp_path / "other", dict.fromkeys("abc", 1))
        machine.schedule(99, past, **options).run([FIRST])
        return machine.starts[0][1]

    assert starts(past) == ["b"]
    assert starts(past, again=True) == ["a", "b", "c"]
    for key, value in (("card", "another"), ("small", True), ("code", "0"), ("versions", {})):
        assert starts([r | {key: value} for r in past]) == ["a", "b", "c"], key


def test_digest_changes_with_what_is_depended_on(tmp_path):
    (tmp_path / "x.py").write_text("1")
    before = results.digest(["*.py"], tmp_path)
    (tmp_path / "y.txt").write_text("2")
    assert results.digest(["*.py"], tmp_path) == before
    (tmp_path / "x.py").write_text("2")
    assert results.digest(["*.py"], tmp_path) != before
    for one in TASKS:
        for pattern in one.all_sources():
            assert list(ROOT.glob(pattern)), f"{one.name}: no file is {pattern}"


def test_lines_survive_one_that_was_torn(tmp_path):
    path = tmp_path / "r"
    results.append(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2, "result": {"ms"')
    results.append(path, {"n": 3})
    assert results.read(path) == [{"n": 1}, {"n": 3}]


@pytest.mark.slow
def test_a_killed_slot_keeps_its_lines_and_leaves_no_process(tmp_path):
    """SIGKILL to the slot itself while its second part is under way."""
    begin = [sys.executable, "-m", "benchmarks.gpu_slot", "--smoke", "--output", str(tmp_path)]
    slot = subprocess.Popen([*begin, "--only", "layers"], cwd=ROOT, stdout=subprocess.DEVNULL)
    path, deadline = None, time.monotonic() + 200
    while time.monotonic() < deadline and not path:
        path = next(iter(tmp_path.glob("*.jsonl")), None)
        time.sleep(0.02)
    workers = _children(slot.pid)
    os.kill(slot.pid, signal.SIGKILL)
    slot.wait()
    assert path and workers
    # The line was whole as soon as there was one.
    kept = results.read(path)
    assert kept[0]["part"] == "GELU" and kept[0]["result"]["GELU"] > 0
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "its worker lives on"
        time.sleep(0.05)


def _children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_process_is_stopped_at_its_limit(tmp_path):
    request = {"path": str(tmp_path / "r"), "stamp": {"slot": "now", "small": True}}
    ended = start_process(
        task("correctness"), ["logits"], 0.5, request=request, environment=dict(os.environ)
    )
    assert ended.stopped and ended.code == -signal.SIGKILL


def test_the_line_that_tells_most():
    trace = 'Traceback:\n  File "x"\nValueError: no such thing\nextra note\n'
    assert telling_line(trace) == "ValueError: no such thing"
    died = (
        "F0000 triton_tiling_propagation.cc:1] Check failed: a == b\n*** stack\n    @ 0x1 (unknown)"
    )
    assert telling_line(died).endswith("Check failed: a == b")
    assert telling_line("") == ""


def test_bad_input_ends_with_a_sentence(capsys):
    for arguments, words in (
        (["--only", "sleep"], "'sleep' is none of correctness, variants"),
        (["--output", "no/such/folder"], "no/such/folder is not a directory"),
        (["--seconds", "0"], "no positive number"),
    ):
        with pytest.raises(SystemExit) as stop:
            gpu_slot.main(arguments)
        assert stop.value.code == 2
        assert words in capsys.readouterr().err


def test_list_says_what_would_be_asked(capsys):
    assert gpu_slot.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(one.name in text and one.answers in text for one in TASKS)


def test_page_holds_predictions_beside_dated_results():
    one = record(task("variants"), "G in full", STAMP | {"card": "NVIDIA H200"}, VERSIONS)
    one |= {"date": "2031-05-06T00:00:00Z", "result": {"what": "G", "ms in full": 24.5}}
    lost = record(task("resume"), "resume", STAMP, VERSIONS) | {"error": "it ended"}
    text = page.to_markdown("NVIDIA H200", [lost], [one], small=False)
    assert "| G: DeiT-S, train step | 22.1 ms | 24.5 ms | 2031-05-06 |" in text
    assert "| B: products by cuBLAS, none by Triton | - | open |  |" in text
    assert "- resume, resume: it ended" in text


def test_predictions_are_of_things_that_are_measured():
    stored = json.loads((ROOT / "benchmarks/results/2026-11-26-h200.json").read_text())
    medians = {f"{1e3 * r['seconds']['median']:.4g}" for r in stored["results"]}
    for prediction in H200:
        assert prediction.part in task(prediction.name).parts
        if prediction.measured:
            assert f"{prediction.measured[0]:.4g}" in medians
            assert prediction.measured[1] == stored["date"]


def test_docs_have_the_table_of_stored_results():
    stored = results.read_all([results.RESULTS])
    rows = predicted_table(H200, results.newest(stored, "NVIDIA H200", small=False))
    assert rows in (ROOT / "docs/gpu.md").read_text()


def test_kernels_are_added_up():
    result = table([("gemm_128.3", 2e6), ("gemm_128.4", 4e6), ("copy", 2e6)], calls=2)
    assert result["kernels"] == 1.5 and result["ms in kernels"] == 4.0
    assert result["table"][1:] == [
        ["gemm", "1", "3.000", "75.0 %"],
        ["copy", "0.5", "1.000", "25.0 %"],
    ]


@pytest.mark.parametrize(
    ("plane", "lines", "name"),
    [
        ("/device:GPU:0", ["Steps", "XLA Modules", "XLA Ops", "Stream #7(Compute)"], "gemm"),
        ("/device:TPU:0", ["Steps", "XLA Modules", "XLA Ops"], "fusion"),
    ],
)
def test_a_trace_counts_each_kernel_once(plane, lines, name, tmp_path, monkeypatch):
    """A line for steps and one for modules cover the same time again."""
    events = [SimpleNamespace(name=name, duration_ns=5.0)]
    whole = [SimpleNamespace(name="all", duration_ns=5.0)]
    found = [SimpleNamespace(name=line, events=whole) for line in lines[:-1]]
    found.append(SimpleNamespace(name=lines[-1], events=events))
    planes = [SimpleNamespace(name=plane, lines=found), SimpleNamespace(name="/host:CPU", lines=[])]
    read = SimpleNamespace(from_file=lambda file: SimpleNamespace(planes=planes))
    monkeypatch.setattr(jax.profiler, "ProfileData", read)
    (tmp_path / "t.xplane.pb").touch()
    assert read_kernels(tmp_path) == [(name, 5.0)]


def test_answers_depend_on_files_that_are_there():
    for one in TASKS:
        for pattern in one.all_sources():
            assert any(ROOT.glob(pattern)), pattern
    sources = {path for pattern in task("resume").all_sources() for path in ROOT.glob(pattern)}
    assert ROOT / "deit_jax/runs/checkpoints/manager.py" in sources


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_part_runs_to_its_end_or_says_what_it_needs(tmp_path, capsys, monkeypatch):
    # Of the programs that it starts: the slot has one GPU, and small batches.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    assert gpu_slot.main(["--smoke", "--seconds", "1500", "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    records = {(r["name"], r["part"]): r for r in results.read(path)}
    assert set(records) == {(one.name, part) for one in TASKS for part in one.parts}
    assert {key: r["error"] for key, r in records.items() if "error" in r} == {}
    needed = {key for key, r in records.items() if "skipped" in r}
    assert needed == {("layers", "attention"), *(("profile", p) for p in task("profile").parts)}
    assert all(" needs an " in records[key]["skipped"] for key in needed)
    resumed = records["resume", "resume"]["result"]
    assert resumed["same weights to the bit"] == "yes" and resumed["same metrics"] == "yes"
    text = path.with_suffix(".md").read_text()
    assert "## Not measured" in text and "| logits | float32" in text
    # Small networks say nothing about a card.
    assert "Predicted" not in text
