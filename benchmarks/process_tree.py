"""What a process and all its descendants have used so far (Linux; elsewhere zeros)."""

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class Memory(NamedTuple):
    """Bytes held by some processes.

    Attributes:
        resident: as `ps` shows them; what several share is counted for each.
        proportional: with what is shared divided among those who share it: their true sum.
        private: what would be free if they ended, memory shared among themselves left out.
    """

    resident: int
    proportional: int
    private: int


def processor_seconds() -> float:
    """User and system time of this process and its living descendants."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for number in _tree():
        try:
            # The name of the program, in brackets, may hold anything; the fields follow it.
            fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # The 14th and 15th number of the file (proc(5)).
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def memory() -> Memory:
    """Memory of this process and its living descendants."""
    sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for number in _tree():
        try:
            lines = (_PROC / str(number) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0]) * 1024
    return Memory(sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"])


def _tree() -> list[int]:
    """Return this process and its descendants."""
    found = [os.getpid()]
    for number in found:
        for file in (_PROC / str(number) / "task").glob("*/children"):
            try:
                found += [int(word) for word in file.read_text().split()]
            except OSError:
                continue
    return found if _PROC.is_dir() else []
