"""A plan as Markdown, by itself or beside an earlier one."""

from collections.abc import Iterable

from benchmarks.planning.classes import CLASSES
from benchmarks.planning.collectives import Collective
from benchmarks.planning.devices import Device
from benchmarks.planning.plan import Plan, Share


def plan_section(plan: Plan, device: Device, top: int) -> str:
    """Return everything about a plan, and its `top` largest kernels."""
    total = plan.total
    lines = [_title(plan), "", *_class_table(plan)]
    if plan.teacher.operations:
        lines.append(_row("of all, the teacher", plan.teacher))
    lines += [
        "",
        f"At the roofline at most {plan.images / total.seconds:,.0f} images/s on {plan.devices}: "
        f"every kernel as fast as its bytes at {device.bytes_per_second / 1e12:.2f} TB/s or its "
        f"operations at {device.flops_per_second['bfloat16'] / 1e12:.0f} TFLOP/s (float32: "
        f"{device.flops_per_second['float32'] / 1e12:.0f}) allow, without launches and links.",
        "",
        f"Memory of a device: {_gigabytes(plan.memory['planned'])} of "
        f"{_gigabytes(device.memory_bytes)}, of which {_gigabytes(plan.memory['temporary'])} "
        "temporary.",
        "",
        *collective_lines(plan.collectives),
    ]
    lines += [f"Note: {note}." for note in plan.notes]
    if top:
        lines += ["", "| ms | times | class | kernel |", "|---|---|---|---|"]
        lines += [
            f"| {seconds * 1e3:.2f} | {times} | {name} | {what} |"
            for name, what, times, seconds in plan.largest[:top]
        ]
    return "\n".join(lines)


def _title(plan: Plan) -> str:
    return f"## {plan.program}, for {plan.devices}"


def _class_table(plan: Plan) -> list[str]:
    head = ["| class | launches | GB | TFLOP | ms |", "|---|---|---|---|---|"]
    rows = [_row(name, share) for name, share in plan.classes.items()]
    return [*head, *rows, _row("**all**", plan.total)]


def _row(name: str, share: Share) -> str:
    return (
        f"| {name} | {share.launches:,} | {share.bytes / 1e9:.2f} | "
        f"{share.operations / 1e12:.3f} | {share.seconds * 1e3:.2f} |"
    )


def collective_lines(collectives: Iterable[Collective]) -> list[str]:
    """Say what crosses between devices, a line for each kind and size."""
    lines = [
        f"- {found.launches} {found.kind} of {found.arrays} array(s), {found.bytes / 1e6:,.3f} MB, "
        f"the largest {found.shape}{' **of the whole batch**' if found.batch_sized else ''}"
        for found in collectives
    ]
    return ["Between devices:", "", *lines] if lines else ["Nothing crosses between devices."]


def change_section(now: Plan, before: Plan, source: str) -> str:
    """Return what changed against an earlier plan of the same program, class by class."""
    lines = [
        f"### Against {source}",
        "",
        "| class | launches | before | GB | before | ms | before | change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in CLASSES:
        new, old = now.classes.get(name, Share()), before.classes.get(name, Share())
        if new.launches or old.launches:
            lines.append(_change_row(name, new, old))
    lines.append(_change_row("**all**", now.total, before.total))
    planned, earlier = now.memory["planned"], before.memory["planned"]
    lines += ["", f"Memory of a device: {_gigabytes(planned)}, before {_gigabytes(earlier)}."]
    if now.collectives != before.collectives:
        told = "\n".join(collective_lines(before.collectives))
        lines += ["", f"Before, {told[0].lower()}{told[1:]}"]
    return "\n".join(lines)


def _change_row(name: str, new: Share, old: Share) -> str:
    return (
        f"| {name} | {new.launches:,} | {old.launches:,} | {new.bytes / 1e9:.2f} | "
        f"{old.bytes / 1e9:.2f} | {new.seconds * 1e3:.2f} | {old.seconds * 1e3:.2f} | "
        f"{(new.seconds - old.seconds) * 1e3:+.2f} |"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
