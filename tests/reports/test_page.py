"""The page is read back by Python's own parser of HTML."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from configs import digits
from deit_jax.config.defaults import default_config
from deit_jax.reports.chart import HEIGHT, WIDTH, axis, chart, labels
from deit_jax.reports.comparison import compare_runs
from deit_jax.reports.markup import element
from deit_jax.reports.page import report_page
from deit_jax.reports.palette import COLOURS, Stroke
from deit_jax.reports.panels import Panel, Series, experiment_panels
from deit_jax.reports.recipe import recipe_differences

EMPTY = {"meta", "img", "line", "polyline", "polygon", "rect", "path"}


class Reader(HTMLParser):
    """Elements with their attributes and own text, in order; refuses what is not well-formed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in EMPTY:
            self.open.append((tag, self.elements[-1]))

    def handle_startendtag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][1][2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]

    def texts(self, tag):
        return [text for _, text in self.all(tag)]


def page_of(*runs):
    """The page of a report, read."""
    return Reader(report_page(compare_runs(runs)))


def test_a_page_has_a_section_for_each_experiment_and_needs_nothing_else(study):
    page = page_of(*study.values())
    models = ["deit_micro_patch4_16", *2 * ["deit_micro_distilled_patch4_16"], "regnety_micro"]
    names = ["no distillation", *(f"{x}, distillation token" for x in ("soft", "hard")), "teacher"]
    titles = [f"{name}, {model}" for name, model in zip(names, models, strict=True)]
    assert page.texts("h2") == ["Results", *titles]
    links = [attributes["href"] for attributes, _ in page.all("a")]
    assert links == [f"#{attributes['id']}" for attributes, _ in page.all("h2")[1:]]
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _, _ in page.elements)
    for _, attributes, _ in page.elements:
        assert not any(key.startswith("on") for key in attributes)
        assert all(value.startswith("data:") for key, value in attributes.items() if key == "src")
    (sheet,) = page.texts("style")
    assert "url(" not in sheet and "@import" not in sheet
    # The table and every path are there.
    comparison = compare_runs(study.values())
    both = f"{comparison.students[2].inference.mean:.2f}"
    assert any(text.startswith(both) for text in page.texts("td"))
    assert all(any(str(path) in text for text in page.texts("dd")) for path in study.values())


def test_names_from_outside_stay_text(run_directory):
    name = '<script>alert("1")</script> & <b>\'x'
    data = {"data.source": "folder", "data.directory": f"/data/{name.replace('/', '')}"}
    path = run_directory(name.replace("/", ""), overrides=data)
    page = page_of(path)
    assert not page.all("script") and not page.all("b")
    assert str(path) in page.texts("dd")[-1]
    assert any(data["data.directory"] in text for text in page.texts("td"))
    assert element("p", "<", title='"<') == '<p title="&quot;&lt;">&lt;</p>'


def test_every_head_has_its_curves_raw_and_averaged(study):
    runs = [study[f"hard{seed}"] for seed in range(3)]
    (experiment,) = compare_runs(runs).students
    accuracy, loss, *_ = experiment_panels(experiment)
    rows = [
        [row for row in map(json.loads, (run / "metrics.jsonl").open()) if row["split"] == "eval"]
        for run in runs
    ]
    for panel, metric in ((accuracy, "top1"), (loss, "loss")):
        assert len(panel.series) == 6
        for series in panel.series:
            kind = "ema" if series.line.dash else "raw"
            values = [[row[f"{kind}/{series.line.colour}/{metric}"] for row in run] for run in rows]
            np.testing.assert_allclose(series.points[1], np.mean(values, axis=0), rtol=1e-14)
    assert {series.line.colour for series in accuracy.series} == {"class", "distillation", "fused"}


def test_what_a_log_does_not_have_is_said(run_directory):
    page = page_of(run_directory("old", ema=False))
    assert any("runs of earlier versions have no input_wait" in text for text in page.texts("p"))
    assert any("none" in text for text in page.texts("p"))


def test_curves_are_where_the_ticks_say():
    rng = np.random.default_rng(0)
    points = np.stack([np.linspace(3, 299.5, 60), 70 + 9 * rng.normal(size=60), np.full(60, 0.5)])
    series = Series("both heads", Stroke("fused", 1), points)
    drawn = Reader(chart(Panel("accuracy", "Top-1 accuracy (%)", (series,))))
    texts = drawn.all("text")[:-1]
    up = [(float(a["y"]), float(text)) for a, text in texts if "dy" in a]
    across = [(float(a["x"]), float(text)) for a, text in texts if "dy" not in a]
    assert len(up) >= 3 and across[-1][1] == 300
    to_epoch, to_value = (np.polynomial.Polynomial.fit(*zip(*ticks, strict=True), 1)
                          for ticks in (across, up))  # fmt: skip
    ((line, _),) = drawn.all("polyline")
    places = np.array([pair.split(",") for pair in line["points"].split()], float)
    assert (places >= 0).all() and (places <= [WIDTH, HEIGHT]).all()
    # A tenth of a pixel is written: 0.08 epochs, 0.02 per cent.
    np.testing.assert_allclose(to_epoch(places[:, 0]), points[0], atol=0.1)
    np.testing.assert_allclose(to_value(places[:, 1]), points[1], atol=0.03)
    ((band, _),) = drawn.all("polygon")
    assert len(band["points"].split()) == 120
    assert line["stroke"] == "var(--fused)" and line["stroke-dasharray"] == "6 3"


def test_a_single_point_is_a_dot_hollow_where_a_line_would_be_dashed():
    point = np.array([[5.0], [70.0], [0.0]])
    both = [Series(name, Stroke("class", dash), point) for dash, name in enumerate(["raw", "EMA"])]
    raw, ema = (at for at, _ in Reader(chart(Panel("top1", "Top-1", tuple(both)))).all("circle"))
    assert raw["stroke"] == ema["stroke"] == raw["fill"] == "var(--class)"
    assert ema["fill"] == "none"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 600), (0, 0.3), (66.2, 66.2), (0, 0), (1e-9, 3e-9), (-4, 12), (0, 123456)]
)
def test_ticks_are_round_and_lie_on_the_axis(low, high):
    found = axis(low, high, 240, 0, 4)
    assert found.low <= low <= high <= found.high
    assert 2 <= len(found.ticks) <= 8
    assert all(0 <= found.place(tick) <= 240 for tick in found.ticks)
    texts = labels(found.ticks)
    assert len(set(texts)) == len(texts)
    for text, tick in zip(texts, found.ticks, strict=True):
        value = float(text.replace("k", "e3"))
        assert value == pytest.approx(tick, rel=1e-9, abs=1e-12)


def test_what_differs_from_the_recipe_is_all_that_differs():
    config = json.loads(json.dumps(digits.get_config("hard").to_dict()))
    config["optimizer"]["weight_decay"] = 0.0500000001
    config["data"]["directory"] = "imagenet2012/5.1.0"
    record = {"config": config, "overrides": ["config.schedule.epochs=4000.0"]}
    found = {row[0]: row[1:] for row in recipe_differences(record, config)}
    ours = default_config()
    for group, values in config.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            default = ours[group][name]
            same = value == (list(default) if isinstance(default, tuple) else default)
            assert (f"{group}.{name}" in found) == (not same)
    assert found["schedule.epochs"] == ["4000", "300", "command line"]
    assert found["augment.policy"] == ['""', "rand-m9-mstd0.5-inc1", "config file"]
    assert found["model.image_size"][:2] == ["16,16", "224,224"]
    # With all its digits, or it would look as if nothing differed.
    assert found["optimizer.weight_decay"][:2] == ["0.0500000001", "0.05"]
    assert found["data.directory"][0] == "imagenet2012/5.1.0"


def test_colours_can_be_told_from_the_page():
    """Lines need a contrast of 3 to the page (WCAG 2.1, 1.4.11), and text one of 4.5."""

    def luminance(colour):
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for name, colour in COLOURS.items():
        if name == "grid":
            continue
        for shade, page in ((colour.light, "#ffffff"), (colour.dark, "#151515")):
            dark, light = sorted([luminance(shade), luminance(page)])
            least = 4.5 if name in ("ink", "muted") else 3.0
            assert (light + 0.05) / (dark + 0.05) >= least, (name, shade)
