"""The run report as one page of HTML that needs nothing else: no network, no script, no file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deit_jax.reports.chart import chart
from deit_jax.reports.comparison import Comparison
from deit_jax.reports.experiments import Experiment
from deit_jax.reports.facts import facts
from deit_jax.reports.markup import Markup, element, html_table, join_markup
from deit_jax.reports.palette import DASHES, HEAD_NAMES, Stroke, stroke_of_experiment
from deit_jax.reports.panels import Panel, comparison_panels, experiment_panels
from deit_jax.reports.recipe import ALL_KEYS, DIFFERENCES, all_keys, recipe_differences
from deit_jax.reports.style import style_sheet
from deit_jax.reports.table3 import COLUMNS, percent, table3_caption, table3_rows
from deit_jax.version import __version__

if TYPE_CHECKING:
    from deit_jax.reports.inspection import Inspection

_NOT_ASKED = (
    "What the networks saw, confusion, mistakes and agreement take the run's checkpoint and images "
    "to know: python -m deit_jax report --images shows them."
)


def report_page(comparison: Comparison, inspections: "Sequence[Inspection]" = ()) -> str:
    """Return the page of a comparison.

    Args:
        comparison: what `compare` found.
        inspections: of all that are `shown`; () where nobody asked for them.
    """
    shown = comparison.shown
    agreement: list[Markup] = []
    images = [[element("p", _NOT_ASKED, class_="note")] for _ in shown]
    if inspections:
        # Not before: it takes JAX.
        from deit_jax.reports.inspection_page import agreement_section, inspection_sections

        agreement = agreement_section(comparison.students, inspections)
        images = [inspection_sections(one) for one in inspections]
    names = [f"{one.label}, {one.model}" for one in shown]
    anchors = [f"experiment-{number}" for number in range(1, len(shown) + 1)]
    links = [
        element("a", name, href=f"#{anchor}") for name, anchor in zip(names, anchors, strict=True)
    ]
    sections = [_experiment(*parts) for parts in zip(shown, names, anchors, images, strict=True)]
    title = f"Runs on {', '.join(sorted({one.first.data_name for one in comparison.students}))}"
    body = [
        element("header", element("h1", title), element("nav", *links)),
        _overview(comparison, agreement),
        *sections,
        element("footer", element("p", f"Written by deit_jax {__version__}.", class_="note")),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("title", title),
        element("style", Markup(style_sheet())),
    ]
    page = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _overview(comparison: Comparison, agreement: list[Markup]) -> Markup:
    rows = table3_rows(comparison)
    parts: list[str] = [
        element("h2", "Results"),
        html_table(COLUMNS, rows, section_after=len(comparison.teachers)),
        element("p", " ".join(table3_caption(comparison)), class_="note"),
        *(element("p", note, class_="note") for note in comparison.notes),
    ]
    if len(comparison.students) > 1:
        reached = [f"{percent(one.inference)}\N{NO-BREAK SPACE}%" for one in comparison.students]
        entries = [
            (f"{one.label}, {one.model}: {reached[number]}", stroke_of_experiment(number))
            for number, one in enumerate(comparison.students)
        ]
        parts += [legend(entries), _panels(comparison_panels(comparison))]
        parts.append(_bands_note(comparison.students))
    return element("section", *parts, *agreement)


def _experiment(experiment: Experiment, name: str, anchor: str, images: list[Markup]) -> Markup:
    run = experiment.first
    entries = [(HEAD_NAMES[head], Stroke(head)) for head in HEAD_NAMES if head in experiment.heads]
    entries += [("raw weights", Stroke("ink")), ("averaged (EMA) weights", Stroke("ink", 1))]
    differences = recipe_differences(run.record, run.config)
    return element(
        "section",
        element("h2", name, id=anchor),
        facts(experiment),
        element("h3", "Curves"),
        legend(entries),
        _panels(experiment_panels(experiment)),
        _bands_note([experiment]),
        *images,
        element("h3", "What differs from the recipe"),
        html_table(DIFFERENCES, differences) if differences else element("p", "Nothing."),
        element(
            "p",
            "The recipe is the default of every key: the paper's, for DeiT-S on ImageNet without a "
            "teacher.",
            class_="note",
        ),
        element(
            "details",
            element("summary", "The whole configuration"),
            html_table(ALL_KEYS, all_keys(run.config)),
        ),
    )


def _panels(panels: Sequence[Panel]) -> Markup:
    return element("div", *map(_panel, panels), class_="panels")


def _panel(panel: Panel) -> Markup:
    parts: list[str] = [element("figcaption", panel.title)]
    if panel.legend and panel.series:
        parts.append(legend([(series.label, series.line) for series in panel.series]))
    missing = element("p", panel.missing, class_="note")
    return element("figure", *parts, chart(panel) if panel.series else missing)


def _bands_note(shown: Sequence[Experiment]) -> Markup:
    """Say what bands are, where there are any."""
    if all(len(one.runs) == 1 for one in shown):
        return Markup("")
    return element("p", "Lines are means over seeds, bands one standard deviation.", class_="note")


def legend(entries: Sequence[tuple[str, Stroke]]) -> Markup:
    """Return what lines mean, each beside its name."""
    return element("ul", *(_entry(*entry) for entry in entries), class_="legend")


def _entry(text: str, line: Stroke) -> Markup:
    dashes = " ".join(f"{length:g}" for length in DASHES[line.dash])
    more = {"stroke_dasharray": dashes} if dashes else {}
    stroke = element(
        "line", x1=1, x2=27, y1=5, y2=5, stroke=f"var(--{line.colour})", stroke_width=2.5, **more
    )
    sample = element("svg", stroke, viewBox="0 0 28 10", aria_hidden="true")
    return element("li", join_markup([sample, element("span", text)]))
