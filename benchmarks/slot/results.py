"""Lines of JSON, one for each thing that was measured, kept whatever happens after them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ENDING = "-slot.jsonl"

Record = dict[str, Any]
"""One measurement: name and part of what was asked; slot (when the slot began) and date; card,
machine, versions, code (digest of the sources that it depends on) and small (sizes of a trial);
seconds that it took; and one of result, error, skipped."""


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line in one write that has reached the disk on return.

    A line that a killed process left unfinished is closed first; readers pass over it.
    """
    line = json.dumps(record, default=vars).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[Record]:
    """Return the whole lines of a file, in order; none of a file that is not there."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def read_all(directories: Iterable[Path]) -> list[Record]:
    """Return what earlier slots measured, the oldest first."""
    files = dict.fromkeys(
        path for folder in directories for path in sorted(folder.resolve().glob(f"*{ENDING}"))
    )
    records = [record for path in files for record in read(path)]
    return sorted(records, key=lambda record: record.get("date", ""))


def newest(records: Iterable[Record], card: str, *, small: bool) -> dict[tuple[str, str], Record]:
    """Return the last result of each thing on one kind of card, by name and part."""
    return {
        (record["name"], record["part"]): record
        for record in records
        if "result" in record and record["card"] == card and record["small"] == small
    }


def measured(
    records: Iterable[Record],
    name: str,
    *,
    card: str,
    code: str,
    versions: Mapping[str, str],
    small: bool,
) -> set[str]:
    """Return the parts that have a result of this card, this code and these versions.

    Args:
        records: of all slots.
        name: of the task.
        card: `device_kind` of the device.
        code: see `digest`.
        versions: of the packages that it depends on.
        small: whether the sizes are those of a trial.
    """
    return {
        record["part"]
        for record in records
        if record["name"] == name
        and "result" in record
        and (record["card"], record["code"], record["small"]) == (card, code, small)
        and all(record["versions"].get(key) == value for key, value in versions.items())
    }


def digest(patterns: Sequence[str], root: Path = ROOT) -> str:
    """Return what changes with the sources that match any of the patterns, contents and names."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        total.update(str(path.relative_to(root)).encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
