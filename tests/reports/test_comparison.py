import json

import numpy as np
import pytest

from deit_jax.reports.comparison import compare_runs
from deit_jax.reports.experiments import spread
from deit_jax.runs.history import read_run


def _results(paths, head, weights="raw"):
    files = [json.loads((path / "result.json").read_text()) for path in paths]
    return [file["evaluation"][weights][head]["top1"] for file in files]


def test_spread_is_numpys_sample_standard_deviation():
    values = np.random.default_rng(0).normal(80, 2, size=7)
    mean, deviation = spread(values)
    # float64 sums in another order.
    assert mean == pytest.approx(np.mean(values), rel=1e-14)
    assert deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert spread([3.0]) == (3.0, None)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_seeds_of_one_experiment_are_one_row(study, weights):
    comparison = compare_runs(study.values(), weights=weights)
    assert [one.label for one in comparison.students] == [
        "no distillation",
        "soft, distillation token",
        "hard, distillation token",
    ]
    assert comparison.notes == ()
    for what, one in zip(["none", "soft", "hard"], comparison.students, strict=True):
        paths = [study[f"{what}{seed}"] for seed in range(3)]
        heads = ["class"] if what == "none" else ["class", "distillation", "fused"]
        assert list(one.heads) == heads
        for head in heads:
            values = _results(paths, head, weights)
            expected = (np.mean(values), np.std(values, ddof=1))
            assert one.heads[head] == pytest.approx(expected, rel=1e-12)


def test_teacher_has_the_accuracy_it_taught_with(study):
    (teacher,) = compare_runs(study.values()).teachers
    record = read_run(study["teacher"])
    step = json.loads((study["hard0"] / "result.json").read_text())["teacher"]["step"]
    at_step = [row for row in record.lines("eval") if row["step"] == step]
    assert teacher.inference.mean == at_step[0]["raw/class/top1"]
    assert teacher.inference.mean != _results([study["teacher"]], "class")[0]


def test_teacher_is_found_though_not_listed(study):
    comparison = compare_runs([study["hard0"]])
    assert [one.first.path for one in comparison.teachers] == [study["teacher"]]


def test_teacher_that_has_moved(study, run_directory, monkeypatch):
    moved = run_directory("elsewhere", "teacher", final=94.0)
    student = run_directory("orphan", "hard", teacher="runs/no_longer_here")
    comparison = compare_runs([student])
    assert comparison.teachers == ()
    assert "runs/no_longer_here" in comparison.notes[0] and "--teacher" in comparison.notes[0]
    assert compare_runs([student], teacher=moved).teachers[0].first.path == moved
    (moved.parent / "weights.pth").write_bytes(b"")
    from_file = run_directory("from_file", "hard", teacher=moved.parent / "weights.pth")
    assert compare_runs([from_file]).notes == (
        f"The teacher of {from_file}, {moved.parent}/weights.pth, is no run, so nothing says how "
        "good it is.",
    )
    # Not the directory that the report is started in.
    by_labels = run_directory("by_labels", "hard")
    monkeypatch.chdir(study["none0"])
    (note,) = compare_runs([by_labels]).notes
    assert note == f"{by_labels} does not say where its teacher is; show it with --teacher."
    with pytest.raises(ValueError, match="was taught by regnety_micro, but"):
        compare_runs([student], teacher=study["none0"])
    with pytest.raises(ValueError, match="None of the runs had a teacher"):
        compare_runs([study["none0"]], teacher=moved)


def test_every_seed_may_have_its_own_teacher(run_directory):
    teachers = [run_directory(f"t{seed}", "teacher", seed=seed) for seed in range(2)]
    students = [
        run_directory(f"s{seed}", "hard", seed=seed, teacher=teacher)
        for seed, teacher in enumerate(teachers)
    ]
    comparison = compare_runs(students)
    assert [len(one.runs) for one in comparison.students] == [2]
    assert [len(one.runs) for one in comparison.teachers] == [2]


def test_other_teachers_make_other_experiments(run_directory):
    good = run_directory("good", "teacher", overrides={"data.train_images": 500})
    poor = run_directory("poor", "teacher", overrides={"data.train_images": 50})
    students = [
        run_directory(path.name + "_student", "hard", teacher=path) for path in (good, poor)
    ]
    comparison = compare_runs(students)
    assert [one.label for one in comparison.students] == [
        "hard, distillation token (teacher's data.train_images=500)",
        "hard, distillation token (teacher's data.train_images=50)",
    ]
    assert len(comparison.teachers) == 2


def test_settings_that_differ_are_named_and_never_averaged(run_directory):
    runs = [
        run_directory(f"run{number}", overrides={"optimizer.learning_rate": rate})
        for number, rate in enumerate([1e-3, 2e-3])
    ]
    labels = [one.label for one in compare_runs(runs).students]
    assert labels == [
        "no distillation (optimizer.learning_rate=0.001)",
        "no distillation (optimizer.learning_rate=0.002)",
    ]


def test_what_does_not_decide_the_outcome_may_differ(run_directory):
    overrides = {"data.workers": 2, "log.every_steps": 7, "checkpoint.every_steps": 3}
    runs = [run_directory("a"), run_directory("b", seed=1, overrides=overrides)]
    assert [len(one.runs) for one in compare_runs(runs).students] == [2]


def test_an_unfinished_run_stands_alone_with_its_last_evaluation(study, run_directory):
    path = run_directory("going", "none", seed=3, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "split": "tra')  # A line that is being written.
    comparison = compare_runs([study["none0"], study["none1"], path])
    assert [len(one.runs) for one in comparison.students] == [2, 1]
    unfinished = comparison.students[1]
    assert unfinished.label == "no distillation, unfinished"
    assert unfinished.epochs == 10
    assert unfinished.inference.mean == read_run(path).lines("eval")[-1]["raw/class/top1"]


def test_a_run_without_evaluation_is_named_and_left_out(study, run_directory):
    path = run_directory("fresh", finished=False)
    (path / "metrics.jsonl").unlink()
    comparison = compare_runs([study["none0"], path])
    assert len(comparison.students) == 1
    assert str(path) in comparison.notes[0]
    with pytest.raises(ValueError, match="None of the runs has been evaluated"):
        compare_runs([path])


def test_repeated_seeds_are_mentioned(run_directory):
    (note,) = compare_runs([run_directory("a"), run_directory("b")]).notes
    assert "repeat a seed (0, 0)" in note


def test_one_run_named_twice_counts_once(study, monkeypatch):
    monkeypatch.chdir(study["none0"].parent)
    (one,) = compare_runs([study["none0"], "none0", "./none0/"]).students
    assert len(one.runs) == 1


def test_weights_come_from_the_configuration_unless_it_is_ambiguous(run_directory):
    ema = run_directory("ema", overrides={"evaluation.weights": "ema"})
    raw = run_directory("raw")
    assert compare_runs([ema]).weights == "ema"
    with pytest.raises(ValueError, match="--weights"):
        compare_runs([ema, raw])
    assert compare_runs([ema, raw], weights="raw").weights == "raw"


def test_missing_average_is_an_error(run_directory):
    with pytest.raises(ValueError, match=r"no accuracies of its ema weights.*--weights raw"):
        compare_runs([run_directory("a", ema=False)], weights="ema")


def test_bad_directories(tmp_path, run_directory):
    path = run_directory("none0")
    with pytest.raises(FileNotFoundError, match="no run directory"):
        compare_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"is no run directory.*it contains runs"):
        compare_runs([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"is no run directory.*--workdir"):
        compare_runs([tmp_path / "empty"])
    good = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text("{\n" + good)
    with pytest.raises(ValueError, match="damaged in line 1"):
        compare_runs([path])
    (path / "metrics.jsonl").write_text(good)
    (path / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        compare_runs([path])


def test_it_is_said_how_many_labels_of_the_teacher_were_computed(run_directory):
    paths = []
    for seed, (computed, read) in enumerate([(40, 0), (0, 40), (3, 1000)]):
        path = run_directory(
            f"run{seed}", "hard", seed=seed, overrides={"teacher.labels": f"{seed}"}
        )
        result = json.loads((path / "result.json").read_text())
        labels = {"directory": f"/labels/{seed // 2}", "computed": computed, "read": read}
        (path / "result.json").write_text(json.dumps({**result, "labels": labels}))
        paths.append(path)
    comparison = compare_runs(paths)
    # Where they lie makes no other experiment.
    assert len(comparison.students) == 1
    assert [note for note in comparison.notes if "labels" in note] == [
        "The teacher's labels of 2 run(s) are kept in /labels/0: of 40 steps they were computed, "
        "of 40 read.",
        "The teacher's labels of 1 run(s) are kept in /labels/1: of 3 steps they were computed, "
        "of 1,000 read.",
    ]
    (paths[0] / "result.json").write_text(json.dumps({**result, "labels": {"read": "x"}}))
    with pytest.raises(ValueError, match=r"labels\.read is 'x'"):
        compare_runs(paths)
