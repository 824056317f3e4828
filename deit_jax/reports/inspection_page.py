"""Sections of the page that show images: what the networks saw, confusion, mistakes, agreement."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from deit_jax.evaluation.answers import Mistake, confusion
from deit_jax.reports.agreement import columns, disagreement_caption, disagreement_rows
from deit_jax.reports.experiments import Experiment
from deit_jax.reports.inspection import Answered, Inspection, disagreement_of
from deit_jax.reports.markup import Markup, element, html_table, join_markup
from deit_jax.reports.palette import HEAD_NAMES
from deit_jax.sheets import SeenImages, below_class
from deit_jax.tables import Column

MOST_CLASSES = 24
"""With more, a table of all pairs is no help."""

_CONFUSED = (Column("class"), Column("answered"), Column("images", True), Column("share", True))
_MOST_CONFUSED = 10
_SMALL = 64


def inspection_sections(inspection: Inspection) -> list[Markup]:
    """Return the sections of one experiment; a sentence says why one is missing."""
    parts = [element("h3", "What the networks see")]
    seen, answered = inspection.seen, inspection.answered
    if isinstance(seen, str):
        parts.append(_missing("The training images are not shown", seen))
    else:
        parts += [_seen(seen), _note(_SEEN + ("" if seen.teacher is None else _SEEN_TEACHER))]
    if isinstance(answered, str):
        parts.append(element("h3", "Confusion and mistakes"))
        parts.append(_missing("The checkpoint was not evaluated", answered))
        return parts
    return [*parts, *_confusion(answered), *_mistakes(answered)]


_SEEN = (
    "Images of the first batch, as they are read and as the networks see them: augmented, erased, "
    "mixed. Bold is the class of the image itself; below are the soft labels that the student "
    "learns from"
)
_SEEN_TEACHER = "; the teacher's are its answers to the very same images"


def agreement_section(
    students: Sequence[Experiment], inspections: Sequence[Inspection]
) -> list[Markup]:
    """Return the table in the form of the paper's Table 4; nothing where nobody has answered."""
    found, left_out = disagreement_of(students, inspections)
    if found is None:
        return []
    parts = [
        element("h3", "Agreement"),
        html_table(columns(found), disagreement_rows(found)),
        _note(disagreement_caption(found)),
    ]
    if left_out:
        parts.append(_note(f"Left out, being evaluated on other images: {', '.join(left_out)}."))
    return parts


def _missing(what: str, why: str) -> Markup:
    return _note(f"{what}: {why}")


def _note(text: str) -> Markup:
    return element("p", text if text.endswith((".", "!", "?")) else f"{text}.", class_="note")


def _seen(seen: SeenImages) -> Markup:
    tiles = []
    for number, name in enumerate(seen.names):
        lines = [_shares("labels", seen.parts(seen.targets[number]))]
        if seen.teacher is not None:
            lines.append(_shares("teacher", seen.parts(seen.teacher[number])))
        pair = [picture(seen.crops[number]), picture(seen.images[number])]
        title = seen.class_names[seen.labels[number]]
        tiles.append(_tile(element("div", *pair, class_="pair"), title, lines, name))
    return element("div", *tiles, class_="tiles")


def _shares(who: str, parts: Sequence[tuple[str, float]]) -> Markup:
    text = ", ".join(f"{name} ({share:.2f})" for name, share in parts)
    return join_markup([element("span", f"{who} ", class_="who"), text])


def _confusion(answered: Answered) -> list[Markup]:
    names = answered.class_names
    head = answered.heads[answered.inference]
    counts = confusion(answered.labels, head.answers, len(names))
    wrong = int(counts.sum() - np.trace(counts))
    few = len(names) <= MOST_CLASSES
    rows = most_confused(counts, names)
    pairs = html_table(_CONFUSED, rows) if rows else element("p", "No image was confused.")
    note = (
        f"Answers of {_of(answered)} to {int(counts.sum()):,} images of split "
        f"'{answered.place.split}' at step {answered.step:,}; {wrong:,} are wrong. "
        + ("Rows are true classes, columns answers. " if few else "")
        + "Share: of the images of that class."
    )
    shown = [_matrix(counts, names), pairs] if few else [pairs]
    return [element("h3", "Confusion"), element("div", *shown, class_="beside"), _note(note)]


def most_confused(
    counts: Int[np.ndarray, "true answered"], names: Sequence[str]
) -> list[list[str]]:
    """Return rows under class, answered, images, share: the most frequent first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    rows = []
    for true, answer in (divmod(int(place), len(counts)) for place in order):
        if count := int(wrong[true, answer]):
            share = f"{100 * count / counts[true].sum():.1f}\N{NO-BREAK SPACE}%"
            rows.append([names[true], names[answer], f"{count:,}", share])
    return rows


def _matrix(counts: Int[np.ndarray, "true answered"], names: Sequence[str]) -> Markup:
    head = element("tr", element("th"), *(element("th", name) for name in names))
    rows = []
    for true, line in enumerate(counts):
        cells = []
        for answer, count in enumerate(line):
            share = count / max(1, line.sum())
            kind = "high" if share > 0.6 else ("none" if count == 0 else "low")
            title = f"{names[true]} answered as {names[answer]}: {100 * share:.1f} %"
            style = f"--share:{100 * share:.0f}%"
            cells.append(element("td", f"{count}", class_=kind, style=style, title=title))
        rows.append(element("tr", element("th", names[true]), *cells))
    body = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    return element("div", body, class_="scroll")


def _mistakes(answered: Answered) -> list[Markup]:
    parts = [element("h3", "The surest mistakes")]
    if not answered.mistakes:
        return [*parts, element("p", "There are none: every answer is right.")]
    parts.append(
        element("div", *(_mistake(m, answered) for m in answered.mistakes), class_="tiles")
    )
    note = (
        f"Wrong answers of {_of(answered)}, those with the largest probability first; bold is the "
        "true class."
    )
    return [*parts, _note(f"{note} {answered.without_teacher}".strip())]


def _mistake(mistake: Mistake, answered: Answered) -> Markup:
    names = answered.class_names
    lines = [
        join_markup(
            [
                element("span", f"{who} ", class_="who"),
                f"{names[answer] if answer >= 0 else 'nothing'} ({share:.2f})",
            ]
        )
        for who, answer, share in answers_to(mistake.index, answered)
    ]
    shown = element("div", picture(mistake.pixels), class_="single")
    return _tile(shown, names[mistake.label], lines, mistake.name)


def answers_to(index: int, answered: Answered) -> list[tuple[str, int, float]]:
    """Return who answers which class to an image, with what probability; the model itself first."""
    order = [answered.inference, *(head for head in HEAD_NAMES if head != answered.inference)]
    named = [(HEAD_NAMES[head], answered.heads[head]) for head in order if head in answered.heads]
    if len(named) == 1:
        named = [("answer", named[0][1])]
    if answered.teacher:
        named.append(("teacher", answered.teacher))
    return [
        (who, int(found.answers[index]), float(found.confidence[index])) for who, found in named
    ]


def _of(answered: Answered) -> str:
    return HEAD_NAMES[answered.inference] if len(answered.heads) > 1 else "the model"


def _tile(shown: Markup, title: str, lines: Sequence[str], file: str) -> Markup:
    caption = element(
        "figcaption",
        element("strong", title),
        *(element("div", line) for line in lines),
        element("div", below_class(file, title), class_="file", title=file),
    )
    return element("figure", shown, caption, class_="tile")


def picture(pixels: UInt8[np.ndarray, "height width 3"]) -> Markup:
    """Return an image that is part of the page: small ones as PNG, photographs as JPEG."""
    file, small = io.BytesIO(), max(pixels.shape[:2]) <= _SMALL
    image = Image.fromarray(pixels)
    image.save(file, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 88}))
    kind = "png" if small else "jpeg"
    data = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    height, width = pixels.shape[:2]
    more = {"class_": "pixels"} if small else {}
    return element("img", src=data, alt="", width=width, height=height, loading="lazy", **more)
