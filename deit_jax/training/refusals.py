"""What can be refused of a start once data and networks are there, before anything is written."""

from pathlib import Path

import jax
import jax.numpy as jnp

from deit_jax.data.stream.loader import check_stream
from deit_jax.runs.checkpoints.directory import read_manifests
from deit_jax.runs.lost_checkpoints import refuse_lost_checkpoints
from deit_jax.training.setup import Setup

_LARGEST_STEP = 2**31 - 1


def refuse_early(setup: Setup, reached: int) -> None:
    """Check lengths, input and memory, and trace the train step, which is then not traced again.

    Args:
        setup: of the run.
        reached: step of its last checkpoint; 0 for a new run.

    Raises:
        ValueError: the run could not be what its configuration says.
    """
    _check_lengths(setup, reached)
    for source, options in (
        (setup.train_source, setup.train_input),
        (setup.eval_source, setup.eval_input),
    ):
        check_stream(source, options, jax.process_index(), jax.process_count())
    # Of which it raises an error where not even the state fits.
    _ = setup.memory
    _trace(setup)


def refuse_directory(workdir: str, setup: Setup, allow_config_change: bool) -> None:
    """Refuse a run that cannot go on from its checkpoints: its `config.json` stays as it is.

    Args:
        workdir: its directory.
        setup: of what is to go on.
        allow_config_change: the configuration may be another than the saved one.

    Raises:
        ValueError: they are gone, or the newest one that can be read is of other arrays.
    """
    refuse_lost_checkpoints(workdir)
    checkpoints = Path(workdir).absolute() / "checkpoints"
    # The saved configuration has the arrays of its checkpoints.
    manifests, _ = read_manifests(checkpoints) if allow_config_change else ({}, ())
    if manifests:
        newest = max(manifests)
        what = f"Checkpoint {checkpoints / str(newest)}"
        manifests[newest].check_fits(setup.abstract_state, what)


def _check_lengths(setup: Setup, reached: int) -> None:
    batch, images = setup.config.training.batch_size, len(setup.train_source)
    schedule = setup.config.schedule
    epochs, whole = schedule.epochs, schedule.epochs + schedule.cooldown_epochs
    # An epoch has as many samples as the data has images, however often each is repeated; with
    # `least_steps` as many as its steps have.
    if not reached and not schedule.least_steps and batch > images * max(1.0, whole):
        raise ValueError(
            f"config.training.batch_size is {batch:,} of {images:,} training images, so that one "
            f"step is {batch / images:.3g} epochs, and config.schedule.epochs is {epochs:g}; use a "
            "smaller batch or more epochs."
        )
    if setup.total_steps > _LARGEST_STEP:
        raise ValueError(
            f"config.schedule.epochs is {epochs:g}, which are {setup.total_steps:,} steps; at most "
            f"{_LARGEST_STEP:,} can be counted."
        )
    if reached > setup.total_steps:
        raise ValueError(
            f"The run has taken {reached:,} steps already, but config.schedule.epochs is "
            f"{epochs:g}, which are {setup.total_steps:,}; give more epochs, or another --workdir."
        )


def _trace(setup: Setup) -> None:
    batch = setup.config.training.batch_size
    height, width = setup.train_input.image_size
    numbers = jax.ShapeDtypeStruct((batch,), jnp.int32)
    example = {name: numbers for name in ("label", "epoch", "index", "copy")}
    example["image"] = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8)
    teacher = setup.teacher.params if setup.teacher else {}
    try:
        if setup.lessons:
            setup.lessons.trace(setup.abstract_state, example)
        else:
            jax.eval_shape(setup.train_step, setup.abstract_state, teacher, example)
    except ValueError as error:
        raise ValueError(f"The train step cannot be built: {error}") from error
