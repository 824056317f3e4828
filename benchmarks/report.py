"""Results as a Markdown page and as JSON."""

import json
from pathlib import Path
from typing import Any

from benchmarks.timing import Spread

Result = dict[str, Any]
"""Of one program: model, mode, teacher, batch_size, dtype, micro_batches, program, seconds (a
Spread), images_per_second, flops, flops_source, mfu, compile_seconds, memory_bytes, memory_kind,
other_load (share of the processor that other processes had meanwhile), and in deit_jax's rows
speedups: {other program: Spread of how many times faster deit_jax is}."""

PLAN_KIND = "XLA plan"
"""What `memory_kind` is where nothing was measured; PyTorch has no plan, so 0 bytes."""

QUIET = 0.05
"""Share of the processor's time that other processes may have without spoiling a comparison."""

_METHOD = """\
Programs of one case took turns in one process, {rounds} rounds of at least {turn_seconds} s or one
call each. A time is the median over the rounds; a ratio compares round by round, is the median of
that, with the lowest and highest round in brackets, and is **above 1 where deit_jax is faster**.
PyTorch's side of a ratio is its fastest number of micro-batches. Weights are random, images are
uint8 (train, distill) or float32 (inference) already on the device, one device is used.
MFU is the model's operations per second over the peak: three forward passes for a training step,
plus the teacher's one. The transformer's are counted analytically, all tokens of all blocks
although deit_jax leaves out the last block's unread tokens; a convnet's are XLA's count.
bfloat16 is autocast in PyTorch. See benchmarks/README.md for what a step is.
"""


def to_json(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2, default=vars) + "\n"


def to_markdown(report: dict[str, Any]) -> str:
    """Return a page with hardware, versions, method, the comparison and all programs."""
    machine, results = report["machine"], report["results"]
    lines = [f"# Throughput on {machine['device']}, {report['date']}", ""]
    lines += [f"- **{key}**: {value}" for key, value in machine.items()]
    lines += ["- **versions**: " + pairs(report["versions"])]
    if report["torch_settings"]:
        lines += ["- **PyTorch settings**: " + pairs(report["torch_settings"])]
    for dtype, (flops, source) in report["peaks"].items():
        lines.append(f"- **peak {dtype}**: {flops / 1e12:.4g} TFLOP/s ({source})")
    side = report["product_side"]
    for dtype, speeds in report["products"].items():
        rates = pairs({name: f"{flops / 1e12:.3g}" for name, flops in speeds.items()})
        lines.append(f"- **products of {side}x{side} matrices, {dtype}**: {rates} TFLOP/s")
    lines += [f"- **command**: `{report['command']}`", ""]
    lines += _METHOD.format(**report).splitlines()
    lines += ["", load_sentence(results)]
    lines += ["", "## deit_jax, and how many times faster than PyTorch", ""]
    lines += comparison_table(results).splitlines()
    lines += ["", "## All programs", ""]
    lines += program_table(results).splitlines()
    if report["skipped"]:
        lines += ["", "## Not measured", "", *(f"- {sentence}" for sentence in report["skipped"])]
    return "\n".join(lines) + "\n"


def load_sentence(results: list[Result]) -> str:
    """Say how quiet the machine was, and warn where it was not."""
    load = max((r["other_load"] for r in results), default=0.0)
    sentence = f"Other processes had up to {100 * load:.0f} % of the processor during a case."
    if load > QUIET:
        # PyTorch's threads wait for one another after every operation, so it suffers first.
        sentence += (
            " **That is too much for a comparison**: it slows PyTorch's threads on a CPU down far "
            "more than XLA's; repeat on a quiet machine."
        )
    return sentence


def comparison_table(results: list[Result]) -> str:
    """Return one row for each of deit_jax's programs."""
    others = list(dict.fromkeys(name for r in results for name in r.get("speedups", {})))
    header = ["model", "mode", "batch", "type", "micro-batches", "program", "images/s", "MFU"]
    rows = [
        [
            *_case_cells(r),
            r["program"],
            f"{r['images_per_second']:.4g}",
            f"{100 * r['mfu']:.0f} %",
            *(_ratio(r["speedups"].get(name)) for name in others),
        ]
        for r in results
        if "speedups" in r
    ]
    return table([*header, *(f"against {name}" for name in others)], rows)


def program_table(results: list[Result]) -> str:
    """Return one row for every program, PyTorch's included."""
    header = ["model", "mode", "batch", "type", "micro-batches", "program", "ms/call (min-max)"]
    header += ["images/s", "GFLOP/image", "MFU", "memory MiB", "compile s"]
    rows = []
    for r in results:
        seconds = r["seconds"]
        low, high = 1e3 * seconds.low, 1e3 * seconds.high
        rows.append(
            [
                *_case_cells(r),
                r["program"],
                f"{1e3 * seconds.median:.4g} ({low:.4g}-{high:.4g})",
                f"{r['images_per_second']:.4g}",
                f"{r['flops'] / r['batch_size'] / 1e9:.3g} ({r['flops_source']})",
                f"{100 * r['mfu']:.0f} %",
                _memory(r),
                f"{r['compile_seconds']:.1f}" if r["compile_seconds"] else "-",
            ]
        )
    return table(header, rows)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _case_cells(r: Result) -> list[str]:
    mode = f"{r['mode']} by {r['teacher']}" if r["teacher"] else r["mode"]
    return [r["model"], mode, str(r["batch_size"]), r["dtype"], str(r["micro_batches"])]


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return "-"
    return f"**{ratio.median:.2f}** ({ratio.low:.2f}-{ratio.high:.2f})"


def _memory(r: Result) -> str:
    if not r["memory_bytes"]:
        # Why it was not measured, if it was to be.
        return "-" if r["memory_kind"] == PLAN_KIND else r["memory_kind"]
    return f"{r['memory_bytes'] / 2**20:,.0f} ({r['memory_kind']})"


def pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
