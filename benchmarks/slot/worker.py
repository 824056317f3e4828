"""The process that measures one task; run by `benchmarks.slot.schedule` with a request as JSON.

Without a request it prints what machine this is, as JSON.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.slot import results
from benchmarks.slot.schedule import record
from benchmarks.slot.tasks import NeedsDevice, task


def main(argv: list[str]) -> int:
    """Measure what is asked for; return the process's exit code."""
    if not argv:
        print(json.dumps(_machine()))
        return 0
    request = json.loads(argv[0])
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    wanted = task(request["name"])
    module = importlib.import_module(f"benchmarks.slot.{wanted.module}")
    facts = _machine()
    path, stamp = Path(request["path"]), {**facts["stamp"], **request["stamp"]}
    measure = module.prepare(request["parts"], stamp["small"])
    for part in request["parts"]:
        begin = time.monotonic()
        print(f"{wanted.name}, {part}", file=sys.stderr, flush=True)
        try:
            outcome: dict[str, Any] = {"result": measure(part)}
        except NeedsDevice as error:
            outcome = {"skipped": str(error)}
        except Exception as error:
            outcome = {"error": _one_line(error)}
        outcome["seconds"] = time.monotonic() - begin
        results.append(path, record(wanted, part, stamp, facts["versions"]) | outcome)
    return 0


def _machine() -> dict[str, Any]:
    from benchmarks.hardware import describe_machine, describe_versions

    machine = describe_machine()
    return {
        "stamp": {"card": machine["device"], "machine": machine},
        "versions": describe_versions(),
    }


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _end_with_the_parent() -> None:
    """End this process and what it started once nobody holds its standard input any more."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
