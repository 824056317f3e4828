"""What a run needs of each device's memory, from shapes alone, before anything is compiled.

What is held between steps is exact. Activations are what the backward pass is given by the forward
pass as it is written; compilers keep a little more or less (docs/scaling.md has both).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax

from deit_jax.scale.activations import Remat
from deit_jax.sharding import split_axis
from deit_jax.trees import Tree


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device.

    Attributes:
        parameters: of the student, and statistics of its batches.
        optimizer: its moments.
        average: of the weights.
        teacher: its parameters.
        gradients: of the parameters that are trained; twice with micro-batches, which are added up.
        gathered: whole weights, in the type of products, of which the device holds a part. With
            blocks that are computed again those of two blocks, else all until the backward pass.
        activations: kept from the forward pass for the backward pass.
        batch: images as they come, and as they are shown to the networks.
    """

    parameters: int
    optimizer: int
    average: int
    teacher: int
    gradients: int
    gathered: int
    activations: int
    batch: int

    @property
    def held(self) -> int:
        """Bytes that are held between steps, whatever the batch."""
        return self.parameters + self.optimizer + self.average + self.teacher

    @property
    def total(self) -> int:
        """Bytes of everything at once."""
        return sum(getattr(self, field.name) for field in fields(self))

    def sentence(self) -> str:
        """Say what is planned, part by part."""
        one, unit = (1e9, "GB") if self.total >= 1e9 else (1e6, "MB")
        sizes = {field.name: getattr(self, field.name) / one for field in fields(self)}
        parts = [f"{size:.2f} {name}" for name, size in sizes.items() if size]
        return f"{self.total / one:.2f} {unit} ({', '.join(parts)})"


@dataclass(frozen=True)
class Settings:
    """What decides how much of a device's memory a run needs.

    Attributes:
        batch: images on all devices together.
        devices: that share it.
        fsdp: over how many the state is split.
        micro_batches: slices of the batch that are computed one after the other.
        remat: "none" or "blocks".
    """

    batch: int
    devices: int
    fsdp: int = 1
    micro_batches: int = 1
    remat: Remat = "none"


@dataclass(frozen=True)
class Workload:
    """What does not change with the settings.

    Attributes:
        state: shapes of the train state.
        trained: shapes of those of its parameters that are trained.
        teacher: shapes of the teacher's parameters.
        pixels: of an image.
        product_bytes: of a number in a product.
        blocks: of a transformer; 0 of a convnet, which has none to compute again.
        kept: bytes of one image that the backward pass needs, by `Settings.remat`.
    """

    state: Tree
    trained: Any
    teacher: Tree
    pixels: int
    product_bytes: int
    blocks: int
    kept: Callable[[Remat], int]

    def plan(self, settings: Settings) -> MemoryPlan:
        """Return what each device needs."""
        held = partial(part_of, parts=settings.fsdp)
        student = {name: self.state[name] for name in ("params", "batch_stats")}
        return MemoryPlan(
            parameters=held(student),
            optimizer=held(self.state["opt_state"]),
            average=held(self.state["ema"]),
            teacher=held(self.teacher),
            gradients=held(self.trained) * (1 if settings.micro_batches == 1 else 2),
            gathered=self._gathered(settings),
            activations=self._activations(settings),
            batch=settings.batch // settings.devices * self.pixels * 3 * (1 + 4),
        )

    def _gathered(self, settings: Settings) -> int:
        sizes = [
            math.prod(leaf.shape) * self.product_bytes
            for leaf in jax.tree.leaves(self.state["params"])
            if split_axis(leaf.shape, settings.fsdp) is not None
        ]
        if settings.remat == "none":
            return sum(sizes)
        return 2 * sum(sizes) // self.blocks

    def _activations(self, settings: Settings) -> int:
        images = settings.batch // (settings.devices * settings.micro_batches)
        if settings.remat == "none":
            return images * self.kept("none")
        inputs = self.kept("blocks")
        # One block at a time is computed again, and is then as if it had been kept; the last one
        # computes two tokens alone.
        return images * (inputs + (self.kept("none") - inputs) // max(self.blocks - 1, 1))


def part_of(tree: Any, parts: int) -> int:
    """Return the bytes of a state on one device, where it is split over so many."""
    return sum(
        math.prod(leaf.shape)
        * leaf.dtype.itemsize
        // (1 if split_axis(leaf.shape, parts) is None else parts)
        for leaf in jax.tree.leaves(tree)
    )
