"""Images a second on many GPUs, from one measured and the model of communication.

    python -m benchmarks.planning.scaling

One H200 is measured with DeiT-S alone (`benchmarks/results/2026-11-26-h200.md`). DeiT-B's time is
its planned one of that day, longer by as much as DeiT-S's measured one was than planned; DeiT
III-H's has DeiT-B's share of the peak. What crosses between devices is added in full, as if nothing
of it were hidden behind computing. An estimate, but for one figure.
"""

import argparse
import sys
from typing import NamedTuple

from benchmarks.flops import vit_forward_flops
from benchmarks.planning.communication import H200, communication
from deit_jax.models.functional import abstract, count_parameters
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.tables import Column, markdown_table

BATCH_SIZE = 256
# DeiT-S, bfloat16: milliseconds of a step, measured and planned (docs/gpu.md); DeiT-B's plan.
MEASURED_SMALL, PLANNED_SMALL, PLANNED_BASE = 30.26, 19.80, 54.69
DEVICES = (1, 8, 64, 256)
# Images a second and core of the host, of batches with three copies of each (docs/input.md).
OF_A_CORE = 2148


class Model(NamedTuple):
    """What is known of a model.

    Attributes:
        title: for the table.
        parameters: their number.
        seconds: of a step of `BATCH_SIZE` images on one device.
        gathers: of its weights in a step, if they are split over a node; 0 if they are copied.
    """

    title: str
    parameters: int
    seconds: float
    gathers: int = 0


def models() -> list[Model]:
    """Return the models of the table."""
    slower = MEASURED_SMALL / PLANNED_SMALL / 1e3
    small, _ = _size("deit_small_patch16_224")
    base, base_flops = _size("deit_base_patch16_224")
    huge, huge_flops = _size("deit3_huge_patch14_224", (154, 154))
    of_base = PLANNED_BASE * slower
    return [
        Model("DeiT-S (measured on 1)", small, MEASURED_SMALL / 1e3),
        Model("DeiT-B", base, of_base),
        # A third forward pass more for the blocks that are computed again.
        Model("DeiT III-H, `fsdp=8`, `remat`", huge, of_base * huge_flops / base_flops * 4 / 3, 2),
    ]


def _size(name: str, image_size: tuple[int, int] | None = None) -> tuple[int, float]:
    size = image_size or model_spec(name).image_size
    params = abstract(model_builder(name, image_size=size))[1]
    return count_parameters(params), vit_forward_flops(params, size)


def images_per_second(model: Model, devices: int) -> float:
    """Return what so many devices train in a second, `BATCH_SIZE` images on each."""
    split = H200.node if model.gathers and devices >= H200.node else 1
    crossing = communication(model.parameters, devices, split, gathers=max(model.gathers, 1))
    return devices * BATCH_SIZE / (model.seconds + crossing.seconds)


def table() -> str:
    """Return the estimate as Markdown."""
    columns = [Column("images a second on"), *(Column(f"{n:,}", True) for n in DEVICES)]
    columns += [Column("of as many alone", True), Column("cores a GPU", True)]
    rows = []
    for model in models():
        rates = [images_per_second(model, devices) for devices in DEVICES]
        share = rates[-1] / rates[0] / DEVICES[-1]
        cells = [*(f"{rate:,.0f}" for rate in rates), f"{100 * share:.0f} %"]
        rows.append([model.title, *cells, f"{rates[0] / OF_A_CORE:.1f}"])
    return markdown_table(columns, rows)


def main() -> int:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
