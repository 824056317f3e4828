"""How many training images a second the input delivers, and how many the model would take."""

import itertools
import os
import time
from dataclasses import replace
from typing import Any, Final

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deit_jax.data.source import Source
from deit_jax.data.stream.batches import TrainBatches
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.stream.options import TrainInput, describe_readers
from deit_jax.data.stream.stages import measure_stages
from deit_jax.devices import PEAK_TFLOPS
from deit_jax.models.flops import forward_flops
from deit_jax.models.registry import model_builder
from deit_jax.schema import Config
from deit_jax.sharding import create_mesh, place, put_batch
from deit_jax.training.setup import open_train_source, set_up, train_input, with_classes

# Of the peak: what DeiT-S reached in training on an H200 (benchmarks/results/2026-11-26-h200.md).
_UTILISATION: Final = 0.24
# At least so many batches should be made while the whole input is timed.
_BATCHES_TIMED: Final = 8


def measure_input(
    config: ConfigDict, *, images: int, seconds: float, run_model: bool
) -> dict[str, Any]:
    """Measure the training input of a configuration, without a model and with one.

    Args:
        config: already validated.
        images: to time the stages with.
        seconds: to run the whole input for.
        run_model: measure the train step; otherwise estimate what it takes from its operations.

    Returns:
        What `python -m deit_jax benchmark input --json` prints: "stages" and "core_ms" in
        milliseconds for each image, rates in images per second, 0 where unknown.

    Raises:
        ValueError, FileNotFoundError: the data or the teacher is not what the configuration says.
    """
    typed = Config.of(config)
    source, options = open_train_source(typed), train_input(typed)
    if not typed.model.num_classes:
        typed = with_classes(typed, source)
    stages = measure_stages(source, options, images, seconds)
    facts: dict[str, Any] = {
        "data": f"{source.name}, {len(source):,} images",
        "repeats": options.data.repeats,
        "batch_size": options.batch_size,
        "workers": options.data.workers,
        "threads": options.data.threads,
        "cores": len(os.sched_getaffinity(0)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "model": config.model.name,
        "readers": describe_readers(options),
        "bytes_per_record": stages.bytes_per_record,
        "damaged": stages.damaged,
        "read_wait_ms": 1e3 * stages.read_wait,
        "stages": {name: 1e3 * seconds for name, seconds in stages.seconds.items()},
    }
    # Before the transfer is added: that is the device's business, while the host reads on.
    facts["core_ms"] = sum(facts["stages"].values())
    options = _batches_within(options, seconds, facts["core_ms"] / facts["cores"] / 1e3)
    facts["timed_batch_size"] = options.batch_size
    facts |= _run_input(source, options, seconds)
    facts["stages"]["transfer"] = facts.pop("transfer")
    facts |= _measure_model(config, seconds) if run_model else _estimate_model(typed)
    return facts


def _batches_within(options: TrainInput, seconds: float, image_seconds: float) -> TrainInput:
    """Return the options with batches so small that several are made in the time given.

    Large photographs take a tenth of a second each: then one batch of 1,024 would take minutes.
    """
    fitting = int(seconds / _BATCHES_TIMED / max(image_seconds, 1e-9))
    # Copies of an image stay together, as they share its decoding.
    smallest = options.data.repeats * max(1, options.data.threads, options.data.workers)
    size = max(fitting, smallest)
    # Devices share each batch evenly.
    size = min(options.batch_size, size + -size % jax.device_count())
    # Groups only order the rows, which costs nothing.
    group = options.mix_group if options.mix_group and size % options.mix_group == 0 else 0
    return replace(options, batch_size=size, mix_group=group)


def _run_input(source: Source, options: TrainInput, seconds: float) -> dict[str, Any]:
    """Run the whole input for a while, and put one batch on the device again and again."""
    begin = time.perf_counter()
    with train_batches(source, options, num_steps=10**9) as batches:
        batch = next(batches)
        first = time.perf_counter() - begin
        # Those that were finished before anyone asked would look like speed.
        ready = options.data.prefetch * max(1, options.data.workers)
        for _ in itertools.takewhile(lambda _: time.perf_counter() - begin < seconds, range(ready)):
            next(batches)
        start, taken = time.perf_counter(), 0
        while taken == 0 or time.perf_counter() - start < seconds:
            batch = next(batches)
            taken += 1
        rate = taken * options.batch_size / (time.perf_counter() - start)
    mesh = create_mesh()
    transfers = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(put_batch(batch, mesh))
        transfers.append(time.perf_counter() - start)
    return {
        "input_rate": rate,
        "first_batch_seconds": first,
        "transfer": 1e3 * min(transfers) / options.batch_size,
    }


def _estimate_model(config: Config) -> dict[str, Any]:
    """Return what devices might train, from operations and data sheets; 0 where unknown."""
    model, teacher, training = config.model, config.teacher, config.training

    def forward(name: str, size: tuple[int, int], dtype: str, num_heads: int) -> float:
        builder = model_builder(
            name,
            num_classes=model.num_classes,
            image_size=size,
            dtype=jnp.dtype(dtype),
            num_heads=num_heads,
        )
        return forward_flops(builder, (1, *size))

    # Forward, and the gradients of activations and of weights; a teacher, and what lies below
    # heads that are trained alone, only go forward. Two submodels see every image.
    passes = (1 if training.parts == "heads" else 3) * (2 if training.cosub else 1)
    operations = passes * forward(model.name, model.image_size, model.dtype, model.num_heads)
    if config.distillation.kind != "none":
        size = teacher.image_size if min(teacher.image_size) > 0 else model.image_size
        # Its attention heads are those of its weights; they cost the same.
        operations += forward(teacher.name, size, teacher.dtype, 0)
    rates = {
        name: _UTILISATION * 1e12 * peaks[config.model.dtype] / operations
        for name, peaks in PEAK_TFLOPS.items()
    }
    kind = jax.devices()[0].device_kind
    here = next((rate for name, rate in rates.items() if kind.startswith(name)), 0.0)
    return {
        "model_rate": here * jax.device_count(),
        "model_source": f"estimate: {operations / 1e9:.3g} GFLOP for each image at "
        f"{100 * _UTILISATION:.0f} % of the device's {config.model.dtype} peak",
        "accelerators": rates,
    }


def _measure_model(config: ConfigDict, limit: float) -> dict[str, Any]:
    """Run the train step on one batch again and again, three times or as often as time allows."""
    config = config.copy_and_resolve_references()
    # Whoever asks what the step takes means the teacher too.
    config.teacher.labels = ""
    setup = set_up(config)
    batch, _ = TrainBatches(setup.train_source, setup.train_input, 0, 1)(0)
    placed = put_batch(batch, setup.mesh)
    teacher = place(setup.teacher.params if setup.teacher else {}, setup.mesh)
    state, seconds, steps = setup.initial_state(), 0.0, 0
    # The first step compiles.
    state = jax.block_until_ready(setup.train_step(state, teacher, placed))
    while steps == 0 or (seconds < limit and (steps < 3 or seconds < 3.0)):
        start = time.perf_counter()
        state = jax.block_until_ready(setup.train_step(state, teacher, placed))
        seconds += time.perf_counter() - start
        steps += 1
    return {
        "model_rate": steps * config.training.batch_size / seconds,
        "model_source": f"measured: {steps} train steps here",
        "accelerators": {},
    }
