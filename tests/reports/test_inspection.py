import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageFont

from deit_jax.evaluation.answers import HeadAnswers, Mistake, confusion
from deit_jax.evaluation.subjects import Place
from deit_jax.reports.comparison import compare_runs
from deit_jax.reports.inspection import Answered, Inspection, Inspector, disagreement_of
from deit_jax.reports.inspection_page import most_confused, picture
from deit_jax.reports.inspection_pictures import _mistakes
from deit_jax.reports.page import report_page
from deit_jax.reports.report import write_report
from deit_jax.sheets import TEXT, SeenImages, below_class, draw_sheet, resized, seen_sheet
from tests.reports.test_page import Reader

NAMES = ("<b>cat</b>", 'd"og', "&ant")
IMAGES = 60


def answered(seed, heads=("class", "distillation", "fused"), split="test"):
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, 3, IMAGES).astype(np.int32)

    def one():
        return HeadAnswers(rng.integers(0, 3, IMAGES).astype(np.int32), rng.random(IMAGES))

    found = {head: one() for head in heads}
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mistake = Mistake("<i>file</i>.png", pixels, 0, 1, 0.99, 7)
    return Answered(
        Place("digits", "", split), NAMES, labels, found, heads[-1], one(), ("<u>x</u>", "runs/t"),
        "",
        [mistake], 40,
    )  # fmt: skip


def seen():
    rng = np.random.default_rng(3)
    crops, images = rng.integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    targets = np.array([[0.9, 0.05, 0.05], [0.4, 0.6, 0.0], [1, 0, 0], [0, 0, 1]])
    return SeenImages(("<a>.png",) * 4, (0, 1, 0, 2), NAMES, crops, images, targets, targets[::-1])


def test_what_cannot_be_known_is_said_in_a_sentence(study):
    comparison = compare_runs([study["hard0"]])

    def nothing(run):
        raise FileNotFoundError("There is no directory /data/<images>.")

    told = []
    inspector = Inspector("raw", nothing, tell=told.append)
    found = [inspector.inspect(one) for one in comparison.shown]
    assert len(told) == 2
    page = Reader(report_page(comparison, found))
    notes = page.texts("p")
    said = "The training images are not shown: There is no directory /data/<images>."
    assert notes.count(said) == 2
    assert any("was not evaluated" in x and str(study["hard0"]) in x for x in notes)
    assert not page.all("img")


def test_without_asking_the_page_says_how_to_ask(study):
    page = Reader(report_page(compare_runs([study["none0"]])))
    assert any("report --images shows them" in text for text in page.texts("p"))


@pytest.mark.slow
def test_images_tables_and_names_are_on_the_page(study, tmp_path):
    comparison = compare_runs([study["none0"], study["hard0"]])
    found = [
        Inspection(study["none0"], seen(), answered(1, heads=("class",))),
        Inspection(study["hard0"], seen(), answered(2)),
        Inspection(study["teacher"], "No images.", "No checkpoint."),
    ]
    page = Reader(report_page(comparison, found))
    # Two pictures of each image that was seen, one of each mistake.
    images = [attributes["src"] for attributes, _ in page.all("img")]
    assert len(images) == 2 * (8 + 1)
    data = base64.b64decode(images[1].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), seen().images[0])
    assert not page.all("b") and not page.all("i") and not page.all("u")
    assert page.texts("strong").count(NAMES[0]) == 2 * (2 + 1)
    assert any('d"og (0.60), <b>cat</b> (0.40)' in text for text in page.texts("div"))
    matrix = [text for a, text in page.all("td") if a["class"] in ("high", "low", "none")]
    one = found[0].answered
    counts = confusion(one.labels, one.heads["class"].answers, 3)
    assert matrix[:9] == [str(count) for count in counts.ravel()]
    names = ["labels", "teacher, <u>x</u>", "no distillation", *(
        f"hard, distillation token, {head}" for head in ("class head", "distillation head",
        "both heads"))]  # fmt: skip
    numbered = [re.fullmatch(r"\(\d\) (.*)", text) for text in page.texts("td")]
    assert [found[1] for found in numbered if found] == names
    written = [path.name for path in write_report(comparison, tmp_path / "report", found)]
    assert {"agreement.png", "seen-2.png", "mistakes-1.png", "confusion-2.png"} <= set(written)
    # The next report removes the pictures that this one has named, and nothing else.
    (tmp_path / "report" / "seen-9.png").touch()
    write_report(compare_runs([study["none0"]]), tmp_path / "report")
    left = {path.name for path in (tmp_path / "report").iterdir()}
    assert left == {"report.html", "report.md", "curves.png", "curves-1.png", "seen-9.png"}


def test_only_answers_to_the_same_images_are_compared(study):
    comparison = compare_runs([study["none0"], study["soft0"], study["hard0"]])
    places = zip(comparison.students, ("test", "validation", "test"), strict=True)
    found = [Inspection(one.first.path, "", answered(1, split=split)) for one, split in places]
    table, left_out = disagreement_of(comparison.students, found)
    assert left_out == [comparison.students[1].label]
    assert len(table.names) == 1 + 1 + 3 + 3
    first, last = found[0].answered, found[2].answered
    row, column = (table.names.index(f"{one.label}, both heads")
                   for one in (comparison.students[0], comparison.students[2]))  # fmt: skip
    expected = np.mean(first.heads["fused"].answers != last.heads["fused"].answers)
    assert table.fractions[row, column] == expected


def test_the_most_frequent_confusions_come_first():
    counts = np.array([[5, 3, 0], [1, 9, 7], [0, 0, 0]])
    assert most_confused(counts, NAMES) == [
        [NAMES[1], NAMES[2], "7", "41.2\N{NO-BREAK SPACE}%"],
        [NAMES[0], NAMES[1], "3", "37.5\N{NO-BREAK SPACE}%"],
        [NAMES[1], NAMES[0], "1", "5.9\N{NO-BREAK SPACE}%"],
    ]


def test_photographs_are_jpeg_and_small_images_exact():
    assert "image/jpeg" in picture(np.zeros((224, 224, 3), np.uint8))
    assert "image/png" in picture(np.zeros((32, 64, 3), np.uint8))


@pytest.mark.parametrize("side", [8, 16, 128])
def test_sheets_have_a_place_for_each_picture(side):
    one = seen()
    sheet = np.asarray(seen_sheet(one, side, columns=3))
    assert sheet.shape[1] == 6 + 3 * (side + 6)
    # The first picture is where the layout says, below a line of title.
    np.testing.assert_array_equal(sheet[21 : 21 + side, 6 : 6 + side], resized(one.crops, side)[0])
    long = draw_sheet([("", one.crops, ["a very long name of a class indeed 0.25"] * 4)], 4)
    assert long.size[0] == 6 + 4 * 22


def test_images_of_a_class_are_told_apart_by_their_folders():
    assert below_class("/data/own/val/cat/day1/07.png", "cat") == "day1/07.png"
    assert below_class("/cat/own/val/cat/07.png", "cat") == "07.png"
    assert below_class("shard-1[12]", "cat") == "shard-1[12]"


def test_answers_beside_mistakes_are_whole():
    # Two of three classes have the widest name, so that some head answers it.
    given = dataclasses.replace(answered(1), class_names=("gravel", *2 * ("Egyptian cat",)))
    ((_, pictures, (caption,)),) = _mistakes(given)
    font = ImageFont.load_default(TEXT)
    assert "head: Egyptian cat " in caption
    assert max(map(font.getlength, caption.splitlines())) <= pictures.shape[2]
