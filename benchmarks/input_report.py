"""The page of benchmarks/input.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import load_sentence, pairs, table
from benchmarks.timing import Spread, speedup, spread

_METHOD = """\
{images} JPEG files made for this page, {kilobytes:.0f} kB on average, most of 500 x 375 pixels,
quality 90, in the page cache. Each program ran in a process of its own, {rounds} times in turn,
restricted to the cores stated, readers included; after some batches it was measured for
{seconds:g} s. Figures are medians over the rounds, lowest and highest in brackets; a ratio compares
round by round and is **above 1 where deit_jax is faster**.

- **deit_jax**: read, decode, random-resized crop (bicubic, equal to Pillow's bit for bit) to uint8
  batches of {batch_size}. Flip, RandAugment, normalisation and erasing happen on the device, as in
  training, and are not in these figures: benchmarks/augmentation.py measures them.
- **torch**: torchvision's ImageFolder, timm's create_transform(224, rand-m9-mstd0.5-inc1, bicubic,
  re_prob 0.25) and DataLoader: the reference's whole input; with repeats its repeating sampler.

The second ratio is of the processor time of all processes, which other programs disturb less.
"Start" is from the first import to the first batch, of which "first batch" is what opening the
stream (processes included) and the first batch took. Memory is that of all its processes, what they
share counted once; in brackets as `ps` adds it up.
"""


def to_markdown(page: dict[str, Any]) -> str:
    """Return a page with hardware, versions, method and results."""
    lines = [f"# Input on {page['machine']['cpu']}, {page['date']}", ""]
    lines += [f"- **{key}**: {value}" for key, value in page["machine"].items()]
    lines += [f"- **versions**: {pairs(page['versions'])}", f"- **command**: `{page['command']}`"]
    method = _METHOD.format(**page, kilobytes=page["bytes_per_image"] / 1e3)
    lines += ["", *method.splitlines()]
    if "bytes_per_short_image" in page:
        size = page["bytes_per_short_image"] / 1e3
        lines += [
            "",
            f'"short" is what `prepare --short-side {page["short_side"]}` makes of the folder, '
            f'{size:.0f} kB for each image; "prepared" keeps the files as they are.',
        ]
    loads = [{"other_load": r["other_load"]} for s in page["results"] for r in s["rounds"]]
    lines += ["", load_sentence(loads), "", *_results(page["results"]).splitlines()]
    return "\n".join(lines) + "\n"


def _results(results: list[dict[str, Any]]) -> str:
    header = ["repeats", "cores", "program", "images from", "workers", "threads", "images/s"]
    header += ["images/s per core", "times torch", "ms of a core per image", "times torch"]
    header += ["start s", "first batch s", "memory MB"]
    rows = []
    for result in results:
        side = result["side"]
        rate = _spread(result, "images_per_second")
        memory = [measured["memory"] for measured in result["rounds"]]
        shared = spread([m["proportional"] / 1e6 for m in memory]).median
        resident = spread([m["resident"] / 1e6 for m in memory]).median
        ours = side["program"] == "deit_jax"
        rows.append(
            [
                *(str(side["repeats"]), str(side["cores"]), side["program"]),
                *(Path(side["directory"]).name, str(side["workers"])),
                str(side["threads"]) if ours else "-",
                _span(rate, "{:.0f}"),
                f"{rate.median / side['cores']:.0f}",
                f"**{_span(_ratio(result, results, _seconds), '{:.2f}')}**" if ours else "-",
                f"{_spread(result, 'processor_ms_per_image').median:.3f}",
                f"{_span(_ratio(result, results, _processor), '{:.2f}')}" if ours else "-",
                f"{_spread(result, 'start_seconds').median:.1f}",
                f"{_spread(result, 'first_batch_seconds').median:.1f}",
                f"{shared:.0f} ({resident:.0f})",
            ]
        )
    return table(header, rows)


def _seconds(measured: dict[str, Any]) -> float:
    return 1 / measured["images_per_second"]


def _processor(measured: dict[str, Any]) -> float:
    return measured["processor_ms_per_image"]


def _ratio(
    result: dict[str, Any],
    results: list[dict[str, Any]],
    cost: Callable[[dict[str, Any]], float],
) -> Spread:
    """Against torch on as many cores: without workers if both are, else with one for each core."""
    side = result["side"]
    candidates = [
        other
        for other in results
        if other["side"]["program"] == "torch"
        and all(other["side"][key] == side[key] for key in ("cores", "repeats"))
    ]
    same = [other for other in candidates if other["side"]["workers"] == side["workers"]]
    other = (same or candidates)[0]
    return speedup(*([cost(measured) for measured in each["rounds"]] for each in (result, other)))


def _spread(result: dict[str, Any], key: str) -> Spread:
    return spread([measured[key] for measured in result["rounds"]])


def _span(values: Spread, form: str) -> str:
    low, high = form.format(values.low), form.format(values.high)
    return f"{form.format(values.median)} ({low}-{high})"
