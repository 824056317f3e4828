"""The pictures of an experiment's images as PNG: what was seen, mistakes, confusion."""

from pathlib import Path

import numpy as np

from deit_jax.evaluation.answers import confusion
from deit_jax.reports.figures import literal, new_figure, save, save_image
from deit_jax.reports.inspection import Answered, Inspection
from deit_jax.reports.inspection_page import MOST_CLASSES, answers_to
from deit_jax.sheets import SheetRow, below_class, draw_sheet, resized, seen_sheet

_SIDE, _COLUMNS = 128, 6
# As wide as "distil. head: Egyptian cat 0.36", of which nothing is then cut out.
_MISTAKE_SIDE = 192


def draw_inspection(inspection: Inspection, number: int, directory: Path) -> list[Path]:
    """Write what there is to see of an experiment; return the files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    files = []
    if not isinstance(inspection.seen, str):
        files.append(directory / f"seen-{number}.png")
        save_image(seen_sheet(inspection.seen, _SIDE, _COLUMNS), files[-1])
    if isinstance(inspection.answered, str):
        return files
    if inspection.answered.mistakes:
        files.append(directory / f"mistakes-{number}.png")
        columns = min(_COLUMNS, len(inspection.answered.mistakes))
        save_image(draw_sheet(_mistakes(inspection.answered), columns), files[-1])
    if len(inspection.answered.class_names) <= MOST_CLASSES:
        files.append(directory / f"confusion-{number}.png")
        _draw_confusion(inspection.answered, files[-1])
    return files


def _mistakes(answered: Answered) -> list[SheetRow]:
    names = answered.class_names
    rows: list[SheetRow] = []
    for start in range(0, len(answered.mistakes), _COLUMNS):
        few = answered.mistakes[start : start + _COLUMNS]
        captions = []
        for mistake in few:
            lines = [f"is {names[mistake.label]}"]
            for who, answer, share in answers_to(mistake.index, answered):
                said = names[answer] if answer >= 0 else "nothing"
                who = who.replace("distillation", "distil.")
                lines.append(f"{who}: {said} {share:.2f}")
            file = below_class(mistake.name, names[mistake.label])
            captions.append("\n".join([*lines, file]))
        pictures = resized(np.stack([mistake.pixels for mistake in few]), _MISTAKE_SIDE)
        rows.append(("", pictures, captions))
    return rows


def _draw_confusion(answered: Answered, path: Path) -> None:
    names = [literal(_shortened(name)) for name in answered.class_names]
    head = answered.heads[answered.inference]
    counts = confusion(answered.labels, head.answers, len(names))
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # Inches, beside those that names take.
    side, beside = 0.9 + 0.36 * len(names), 0.08 * max(map(len, names))
    figure = new_figure(side + beside, side + 0.7 * beside)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        if count:
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_xlabel("answer", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    save(figure, path)


def _shortened(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 10]}...{name[-7:]}"
