"""The page of a card: predictions beside results, then every result with its date."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import pairs, table
from benchmarks.slot.predicted import PREDICTIONS, predicted_table
from benchmarks.slot.results import Record, newest
from benchmarks.slot.tasks import TASKS

_METHOD = """\
Written by `python -m benchmarks.gpu_slot`, one process for each question. Weights are random;
images are on the device already, but where files are named. Numbers are medians over turns; a
ratio above 1 is faster. What an earlier slot measured has its own date. docs/gpu.md says what was
expected.
"""


def to_markdown(card: str, here: Sequence[Record], past: Sequence[Record], *, small: bool) -> str:
    """Return the page of a slot.

    Args:
        card: `device_kind`.
        here: this slot's records.
        past: those of earlier slots, whose results are shown where there is none of this slot.
        small: whether these are the sizes of a trial.
    """
    date = max((record["date"][:10] for record in here), default="")
    lines = [f"# {'Trial of a slot' if small else 'A slot'} on {card}, {date}", ""]
    if here:
        lines += [f"- **{key}**: {value}" for key, value in here[-1]["machine"].items()]
        lines += ["- **versions**: " + pairs(here[-1]["versions"])]
    lines += ["", *_METHOD.splitlines()]
    results = newest([*past, *here], card, small=small)
    if card in PREDICTIONS and not small:
        lines += ["", "## Predicted and measured", ""]
        lines += predicted_table(PREDICTIONS[card], results).splitlines()
    for task in TASKS:
        found = {
            part: results[task.name, part] for part in task.parts if (task.name, part) in results
        }
        if found:
            lines += ["", f"## {task.name}: {task.answers}", ""]
            lines += table(["part", "result", "on"], [_row(r) for r in found.values()]).splitlines()
        for part, record in found.items():
            if rows := record["result"].get("table"):
                lines += ["", f"### {part}", "", *table(rows[0], rows[1:]).splitlines()]
    lost = [_lost(r) for r in here if "result" not in r]
    if lost:
        lines += ["", "## Not measured", "", *lost]
    return "\n".join(lines) + "\n"


def _row(record: Record) -> list[str]:
    result = record["result"]
    shown = [f"{key} {_number(value)}" for key, value in result.items() if _plain(key)]
    text = "; ".join(shown)
    what = f"{result['what']}: " if "what" in result else ""
    return [record["part"], what + text, record["date"][:10]]


def _plain(key: str) -> bool:
    return key not in ("what", "table")


def _number(value: Any) -> str:
    return f"**{value:.4g}**" if isinstance(value, float | int) else f"**{value}**"


def _lost(record: Mapping[str, Any]) -> str:
    why = record.get("error") or record.get("skipped")
    return f"- {record['name']}, {record['part']}: {why}"
