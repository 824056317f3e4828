"""What a run says when it begins and when it has ended."""

from pathlib import Path
from typing import Any

import jax

from deit_jax.data.stream.options import describe_readers
from deit_jax.models.functional import count_parameters
from deit_jax.sharding import platform_of
from deit_jax.training.advice import advice
from deit_jax.training.learning_rate import peak_learning_rate
from deit_jax.training.setup import Setup
from deit_jax.training.state import TrainState


def opening(setup: Setup, state: TrainState, start: int) -> str:
    """Say what is about to happen, with the numbers that follow from the configuration.

    A line for each thing that is worth a second look follows (`advice`).

    Args:
        setup: of the run.
        state: that it begins with.
        start: step of that state.
    """
    config = setup.config
    # Where a batch is larger than the data set, the epochs run fast.
    each = 1 / setup.steps_per_epoch
    epochs = f" ({each:.3g} epochs each)" if each > 1 else ""
    once = len(setup.train_source) / config.training.batch_size
    if (passes := setup.steps_per_epoch / once) > 1:
        epochs = f" (an epoch is {passes:.3g} passes over the images: schedule.least_steps)"
    teacher = ""
    if setup.taught_by:
        teacher = f", taught ({config.distillation.kind}) by {setup.taught_by['name']}"
    if setup.lessons:
        teacher += f", {setup.lessons.outlook(setup.total_steps - start)}"
    what = (
        f"{config.model.name} ({count_parameters(state['params']):,} parameters)"
        f"{teacher}; {len(setup.train_source):,} training and "
        f"{len(setup.eval_source):,} evaluation images of {setup.train_source.name}; "
        f"{setup.total_steps:,} steps of {config.training.batch_size} images{epochs} on "
        f"{setup.mesh.size} {platform_of(setup.mesh)} device(s); "
        f"{describe_readers(setup.train_input, jax.process_count())}; peak learning rate "
        f"{peak_learning_rate(config):.3g}; "
        f"{f'continuing at step {start}' if start else 'starting'}."
    )
    return "\n".join([what, *(f"note: {line}" for line in advice(config, once, setup.mesh.size))])


def closing(setup: Setup, result: dict[str, Any], workdir: Path) -> str:
    """Say how it ended, and where everything is.

    Args:
        setup: of the run.
        result: what `result.json` holds.
        workdir: directory of the run.
    """
    weights, head = setup.config.evaluation.weights, setup.inference_head
    top1, best = result["evaluation"][weights][head]["top1"], result["best"]
    failed = result["failed_saves"]
    unsaved = f" {failed} checkpoint(s) could not be saved on the way." if failed else ""
    of_best = f"; best {best['value']:.2f} % at step {best['step']:,}" if best else ""
    return (
        f"Done: top-1 {top1:.2f} % ({weights} weights, {head} head) after {result['steps']:,} "
        f"steps{of_best}. Everything is in {workdir}; "
        f"python -m deit_jax report {workdir} shows it.{unsaved}"
    )
