"""HTML that cannot hold anything by accident: what is not markup already is escaped."""

import html
from collections.abc import Sequence

from deit_jax.files import printable
from deit_jax.tables import Column, Rows

_EMPTY = ("img", "path", "rect", "line", "polyline", "polygon", "circle", "meta")
# Texts up to here are not broken into lines.
_SHORT = 16


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        children: in order; all that is no `Markup` is text, and escaped.
        attributes: `class_` is "class"; other underscores are hyphens. Values are escaped.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
    )
    if name in _EMPTY and not children:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{join_markup(children)}</{name}>")


def join_markup(children: Sequence[str]) -> Markup:
    """Return children one after the other; see `element`."""
    return Markup("".join(c if isinstance(c, Markup) else _escape(c) for c in children))


def html_table(columns: Sequence[Column], rows: Rows, section_after: int = 0) -> Markup:
    """Return a table that scrolls by itself where the page is narrower.

    Args:
        columns: its headings.
        rows: a text (or `Markup`) for each column.
        section_after: draw a line after so many rows.
    """

    def cells(name: str, texts: Sequence[str]) -> list[Markup]:
        kinds = ["number" if column.numbers else "text" for column in columns]
        return [
            element(name, text, class_=kind if len(text) > _SHORT else f"{kind} short")
            for text, kind in zip(texts, kinds, strict=True)
        ]

    head = element("tr", *cells("th", [column.heading for column in columns]))
    lines = [element("tr", *cells("td", row)) for row in rows]
    bodies = [part for part in (lines[:section_after], lines[section_after:]) if part]
    parts = [element("thead", head), *(element("tbody", *part) for part in bodies)]
    return element("div", element("table", *parts), class_="scroll")


def _escape(text: str) -> str:
    # Bytes in names of files that are no UTF-8 cannot stand on a page.
    return html.escape(printable(text), quote=True)
