"""Plans kept in a file, to be compared with later ones."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.planning.plan import Plan


def check_new(path: Path) -> None:
    """Raise ValueError if a file is there already, or could not be written."""
    if path.exists():
        raise ValueError(f"{path} is there already; save the plans in another file.")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a directory; create it or write elsewhere.")


def save(path: Path, plans: Iterable[Plan], about: dict[str, Any]) -> None:
    """Write plans, with the versions of what they were made with."""
    content = {"about": about, "plans": [plan.to_json() for plan in plans]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> dict[tuple[str, str], Plan]:
    """Read saved plans by program and devices.

    Raises:
        ValueError: the file holds none; one sentence.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plans = [Plan.from_json(found) for found in content["plans"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of plans that --save wrote ({error!r}).") from error
    return {(plan.program, plan.devices): plan for plan in plans}
