"""Sheets of small pictures with captions; and training images as the networks see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

GAP, LINE, TEXT = 6, 15, 12
# Of a soft label so many classes are named, and those beside the first only from this share on.
_MOST_NAMED, _LEAST_SHARE = 3, 0.05

SheetRow = tuple[str, UInt8[np.ndarray, "pictures height width 3"], Sequence[str]]
"""Title of a row, its pictures, and what stands below each."""


@dataclass(frozen=True)
class SeenImages:
    """A few images of a training batch, and what the student is to learn from them.

    Attributes:
        names: of the records.
        labels: of the images, before anything is mixed.
        class_names: of all classes.
        crops: as they are read: cut out and resized.
        images: as the networks see them, without the normalisation.
        targets: what the labels are after smoothing and mixing; each row sums to 1.
        teacher: the teacher's probabilities for `images`; None without one.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    crops: UInt8[np.ndarray, "images height width 3"]
    images: UInt8[np.ndarray, "images height width 3"]
    targets: Float[np.ndarray, "images classes"]
    teacher: Float[np.ndarray, "images classes"] | None = None

    def parts(self, probabilities: Float[np.ndarray, " classes"]) -> list[tuple[str, float]]:
        """Return the classes with the largest shares, by name, above what smoothing gives to all.

        Args:
            probabilities: a row of `targets` or `teacher`.
        """
        order = np.argsort(-probabilities, kind="stable")[:_MOST_NAMED]
        floor = max(_LEAST_SHARE, float(probabilities.min()) + 1e-6)
        shown = [i for place, i in enumerate(order) if place == 0 or probabilities[i] >= floor]
        return [(self.class_names[i], float(probabilities[i])) for i in shown]


def below_class(name: str, title: str) -> str:
    """Return what tells an image from others of its class: its path in there, or its name.

    Args:
        name: of the image, mostly a path.
        title: of its class.
    """
    _, folder, path = name.rpartition(f"/{title}/")
    return path if folder else Path(name).name


def seen_sheet(seen: SeenImages, side: int = 128, columns: int = 6) -> Image.Image:
    """Draw the images as they are read, and as the networks see them with their soft labels."""
    rows: list[SheetRow] = []
    for start in range(0, len(seen.names), columns):
        few = range(start, min(start + columns, len(seen.names)))
        titles = [seen.class_names[seen.labels[i]] for i in few]
        read = [
            f"{title}\n{below_class(seen.names[i], title)}"
            for i, title in zip(few, titles, strict=True)
        ]
        rows.append(("as read" if start == 0 else "", seen.crops[few.start : few.stop], read))
        shown, learned = seen.images[few.start : few.stop], [_learned(seen, i) for i in few]
        rows.append(("as the network sees it" if start == 0 else "", shown, learned))
    return draw_sheet([(t, resized(pictures, side), c) for t, pictures, c in rows], columns)


def _learned(seen: SeenImages, number: int) -> str:
    """Return the soft label of an image, and what the teacher answers."""
    lines = [f"{name} {share:.2f}" for name, share in seen.parts(seen.targets[number])]
    if seen.teacher is not None:
        name, share = seen.parts(seen.teacher[number])[0]
        lines.append(f"teacher: {name} {share:.2f}")
    return "\n".join(lines)


def resized(
    pictures: UInt8[np.ndarray, "pictures height width 3"], side: int
) -> UInt8[np.ndarray, "pictures tall wide 3"]:
    """Make the longer side of each picture as long; small ones keep sharp pixels."""
    _, height, width, _ = pictures.shape
    longest = max(height, width)
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    way = Image.Resampling.NEAREST if longest < side else Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(one).resize(size, way)) for one in pictures])


def draw_sheet(rows: Sequence[SheetRow], columns: int) -> Image.Image:
    """Lay out rows of pictures of one size, with their captions below."""
    font = ImageFont.load_default(TEXT)
    height, width = rows[0][1].shape[1:3]
    below = [LINE * max(1, *(len(text.splitlines()) for text in texts)) for _, _, texts in rows]
    tall = GAP + sum(LINE + height + lines + GAP for lines in below)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), tall), "white")
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for (title, pictures, texts), lines in zip(rows, below, strict=True):
        pen.text((GAP, top), title, "black", font)
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            left = GAP + column * (width + GAP)
            sheet.paste(Image.fromarray(picture), (left, top + LINE))
            text = "\n".join(_cut(line, width, font) for line in text.splitlines())
            pen.multiline_text((left, top + LINE + height), text, "dimgrey", font, spacing=2)
        top += LINE + height + lines + GAP
    return sheet


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Take the middle out of a line that is wider than its picture."""
    kept = len(text)
    shown = text
    while kept > 1 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    return shown
