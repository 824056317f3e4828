import io
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deit_jax.cli.main import main
from deit_jax.reports import panel_picture
from deit_jax.reports.comparison import compare_runs
from deit_jax.reports.curves import curve, draw_curves
from deit_jax.reports.figures import literal, save
from deit_jax.reports.palette import Stroke
from deit_jax.reports.panels import Panel, Series
from deit_jax.reports.report import write_report
from deit_jax.reports.table3 import COLUMNS, duration, show_table3, table3_markdown, table3_rows
from deit_jax.runs.history import read_run
from tests.full_disk import full_disk


@pytest.fixture
def output(tmp_path):
    return tmp_path / "report"


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, and not drawn: for tests that look at something else."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: path.touch())
    return Figure


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_in_the_form_of_the_papers(study):
    comparison = compare_runs(study.values())
    _, none, soft, hard = comparison.teachers + comparison.students
    assert table3_rows(comparison)[1:] == [
        ("no distillation", "yes", "-", _written(none, "class"), "-", "-", "200", "20", "62 s", "3",
         "deit_micro_patch4_16"),
        *[
            (f"{kind}, distillation token", "yes", kind, _written(one, "class"),
             _written(one, "distillation"), _written(one, "fused"), "200", "20", "62 s", "3",
             "deit_micro_distilled_patch4_16")
            for kind, one in (("soft", soft), ("hard", hard))
        ],
    ]  # fmt: skip
    assert table3_rows(comparison)[0][0] == "teacher"
    assert table3_rows(comparison)[0][-1] == "regnety_micro"


def _written(experiment, head):
    values = [row[head] for row in experiment.accuracies]
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_labels_are_not_used_where_the_teacher_has_all_the_weight(run_directory):
    path = run_directory("only_teacher", "hard", overrides={"distillation.weight": 1.0})
    assert table3_rows(compare_runs([path]))[0][:3] == ("hard, distillation token", "no", "hard")


def test_markdown_and_a_pipe_show_the_same(study):
    comparison = compare_runs(study.values())
    file = io.StringIO()
    show_table3(comparison, Console(file=file, width=40))
    printed = file.getvalue()
    assert printed.isascii()
    assert "\x1b" not in printed
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    written = [line for line in table3_markdown(comparison).splitlines() if line.startswith("|")]
    expected = [_cells(line.replace("±", "+-")) for line in written if "---" not in line]
    assert [_cells(line) for line in table if "---" not in line] == expected
    assert expected[0] == [column.heading for column in COLUMNS]


@pytest.mark.parametrize(("width", "missing"), [(200, None), (80, "model")])
def test_a_narrow_terminal_gets_fewer_columns(study, width, missing):
    comparison = compare_runs(study.values())
    file = io.StringIO()
    show_table3(comparison, Console(file=file, width=width, force_terminal=True, color_system=None))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("Left out for lack of width" in file.getvalue()) == bool(missing)
    assert any("both" in line for line in lines)
    assert any("deit_micro_patch4_16" in line for line in lines) == (not missing)


def test_report_command_writes_table_and_picture(study, output, capsys):
    assert main(["report", *map(str, study.values()), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert str(output / "report.md") in printed and str(output / "curves.png") in printed
    text = (output / "report.md").read_text()
    assert table3_markdown(compare_runs(study.values())) in text
    assert "![Learning curves](curves.png)" in text
    assert all(str(path) in text for path in study.values())
    with Image.open(output / "curves.png") as image:
        assert image.size == (1440, 960)
        # Text, axes and curves in several colours, not an empty sheet.
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_curves_are_titled_with_the_models_that_were_trained(study, output, undrawn, monkeypatch):
    titles = []
    monkeypatch.setattr(undrawn, "suptitle", lambda self, text, **_: titles.append(text))
    output.mkdir()
    draw_curves(compare_runs([study["hard0"]]), output / "curves.png")
    draw_curves(compare_runs([study["none0"], study["hard0"]]), output / "curves.png")
    distilled = "deit_micro_distilled_patch4_16"
    assert titles[0].startswith(f"Learning curves of {distilled} on")
    assert titles[1].startswith(f"Learning curves of {distilled}, deit_micro_patch4_16 on")


def test_without_matplotlib_the_table_still_comes(study, output, capsys, monkeypatch):
    output.mkdir()
    (output / "curves.png").write_bytes(b"of an earlier report")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", str(study["none0"]), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "no distillation" in printed
    assert "pip install 'deit_jax[demo]'" in printed
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.md"]
    # Curves of the page need nothing.
    assert "<polyline" in (output / "report.html").read_text()
    assert "pip install 'deit_jax[demo]'" in (output / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_has_lost_its_log_has_its_row_and_no_curves(study, run_directory, output):
    path = run_directory("bare", "hard", teacher=study["teacher"])
    (path / "metrics.jsonl").unlink()
    assert main(["report", str(path), str(study["none0"]), "--output", str(output)]) == 0
    assert "hard, distillation token" in (output / "report.md").read_text()
    # Of the student with a log, and of the teacher.
    pictures = {"curves.png", "curves-1.png", "curves-3.png"}
    assert {file.name for file in output.glob("*.png")} == pictures


@pytest.mark.usefixtures("undrawn")
def test_unfinished_runs_are_reported_as_such(study, run_directory, output, capsys):
    path = run_directory("going", "hard", finished=False, teacher=study["teacher"])
    assert main(["report", str(path), str(study["none0"]), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "hard, distillation token, unfinished" in printed
    assert "Unfinished runs stand with their last evaluation." in printed


def test_curves_are_mean_and_deviation_over_seeds(study):
    one = next(one for one in compare_runs(study.values()).students if one.label.startswith("hard"))
    points = curve(one, "eval", "raw/fused/top1")
    records = [read_run(study[f"hard{seed}"]) for seed in range(3)]
    each = [[row["raw/fused/top1"] for row in record.lines("eval")] for record in records]
    np.testing.assert_array_equal(points[0], [row["epoch"] for row in records[0].lines("eval")])
    np.testing.assert_allclose(points[1], np.mean(each, axis=0), rtol=1e-14)
    np.testing.assert_allclose(points[2], np.std(each, axis=0, ddof=1), rtol=1e-12)


def test_curves_of_losses_that_were_not_finite(run_directory, output):
    path = run_directory("bad")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    lines[0] = '{"step": 1, "split": "train", "epoch": 0.5, "loss": null}'
    (path / "metrics.jsonl").write_text("\n".join(lines))
    comparison = compare_runs([path])
    assert curve(comparison.students[0], "train", "loss")[0, 0] == 1.0
    assert len(write_report(comparison, output)) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (61, "61 s"), (3000, "50 min"), (190_800, "2.2 days"), (36_000, "10 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_mistakes_are_one_sentence_and_exit_code_2(study, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    for arguments, words in [
        ([str(tmp_path)], "is no run directory"),
        ([str(tmp_path / "nowhere")], "There is no run directory"),
        ([str(study["none0"]), "--output", str(file)], "is a file"),
    ]:
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.startswith("error: ") and error.count("\n") == 1


def test_names_of_any_kind_are_drawn_and_written_as_they_are(run_directory, output, capsys):
    names = ["$\\frac{a$", "$5 and $6", "d\udce4t", "\\$x_1$", "100 %_{"]
    paths = []
    for number, name in enumerate(names):
        data = {"data.source": "folder", "data.directory": f"/data/{name}"}
        paths += [run_directory(f"{name} {i}", seed=2 * number + i, overrides=data) for i in (0, 1)]
    assert main(["report", *map(str, paths), "--output", str(output)]) == 0
    text = (output / "report.md").read_text(encoding="utf-8")
    assert Image.open(output / "curves.png").size[0] > 100
    for name in names:
        shown = name.replace("\udce4", "\ufffd")
        assert f"{shown} 0`" in text
        # Matplotlib keeps a dollar that is escaped, and takes two that are not for a formula.
        assert literal(name).replace(r"\$", "") == shown.replace("$", "")
    assert "error" not in capsys.readouterr().err


def test_a_report_on_a_full_disk_leaves_no_half_picture(study, output, capsys):
    with full_disk():
        assert main(["report", *map(str, study.values()), "--output", str(output)]) == 2
    assert capsys.readouterr().err == f"error: {output / 'curves.png'}: File too large.\n"
    assert list(output.iterdir()) == []


def test_characters_that_the_font_lacks_are_drawn_without_a_warning(tmp_path, recwarn):
    from matplotlib.figure import Figure

    sizes = []
    for text in ("plain", "\u56fe"):
        figure = Figure()
        figure.suptitle(text)
        save(figure, tmp_path / "figure.png")
        sizes.append((tmp_path / "figure.png").stat().st_size)
    assert [str(warning.message) for warning in recwarn] == [] and len(set(sizes)) == 2


def test_training_beyond_the_last_evaluation_is_in_the_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(panel_picture, "save", lambda figure, path: drawn.append(figure))
    panels = []
    for name, last in (("accuracy", 40.0), ("loss", 58.0), ("speed", 55.0)):
        points = np.array([[20.0, last], [1.0, 2.0], [0.0, 0.0]])
        panels.append(Panel(name, name, (Series("x", Stroke("ink"), points),)))
    panel_picture.draw_panels(panels, "a stopped run", tmp_path / "curves.png")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        assert low == 0 and 58 <= high < 60
