"""Peak memory of one program, in a fresh process where nothing else has run.

On a GPU it is the most that the framework's allocator held at once, compilation's trial runs
included for JAX. On a CPU no allocator keeps count, so it is the growth of the process: most
resident memory during a few calls, above the process with the framework loaded but idle.
"""

import ctypes
import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.cases import OURS, Case

DEVICE_KIND = "allocator peak"
PROCESS_KIND = "growth of the process"

_CALLS = 3
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(case: Case, name: str, micro_batches: int, *, timeout: float = 1200) -> tuple[int, str]:
    """Return (bytes, kind of measurement) of the program `name`; (0, reason) if it failed."""
    request = json.dumps({"case": asdict(case), "name": name, "micro_batches": micro_batches})
    command = [sys.executable, "-m", "benchmarks.memory", request]
    root = Path(__file__).resolve().parents[1]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=root)
    except subprocess.TimeoutExpired:
        return 0, f"not measured: no result after {timeout:.0f} s"
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        return 0, f"not measured: {last[0]}"
    answer = json.loads(run.stdout.strip().splitlines()[-1])
    return answer["bytes"], answer["kind"]


def _main(request: str) -> None:
    wanted = json.loads(request)
    case = Case(**wanted["case"])
    probe = _probe_jax if wanted["name"] in OURS else _probe_torch
    size, kind = probe(case, wanted["name"], wanted["micro_batches"])
    print(json.dumps({"bytes": size, "kind": kind}))


def _probe_jax(case: Case, name: str, micro_batches: int) -> tuple[int, str]:
    import jax

    from benchmarks import jax_side

    device = jax.devices()[0]
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    idle = _resident("VmRSS")
    program = jax_side.build(case, micro_batches, name)
    statistics = device.memory_stats()
    if statistics is None:
        return _growth(program.run, idle), PROCESS_KIND
    program.run(_CALLS)
    return device.memory_stats()["peak_bytes_in_use"], DEVICE_KIND


def _probe_torch(case: Case, name: str, micro_batches: int) -> tuple[int, str]:
    import torch

    from benchmarks import torch_side

    torch_side.settings()
    on_gpu = torch_side.DEVICE.type == "cuda"
    torch.zeros(1, device=torch_side.DEVICE)
    idle = _resident("VmRSS")
    program = torch_side.build(case, micro_batches, name)
    if not on_gpu:
        return _growth(program.run, idle), PROCESS_KIND
    torch.cuda.reset_peak_memory_stats()
    program.run(_CALLS)
    return torch.cuda.max_memory_allocated(), DEVICE_KIND


def _growth(run: Callable[[int], float], idle: int) -> int:
    """Peak resident memory of a few calls above `idle`, what compiling used and freed left out."""
    run(1)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Writing 5 sets the high-water mark back to the present size (Linux, proc(5)).
    _CLEAR.write_text("5")
    run(_CALLS)
    return _resident("VmHWM") - idle


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{_STATUS} has no {field}; resident memory cannot be measured here.")
    return int(found[1]) * 1024


if __name__ == "__main__":
    _main(sys.argv[1])
