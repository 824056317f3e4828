"""A run from its first check to its result."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deit_jax.files import require_utf8
from deit_jax.runs.checkpoints.directory import saved_steps
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import RunDirectory, open_run
from deit_jax.runs.going_on import as_begun
from deit_jax.runs.interruption import Interruption
from deit_jax.runs.made_from import made_from
from deit_jax.runs.processes import require_shared
from deit_jax.schema.learning import CheckpointOptions
from deit_jax.training.initial import load_initial
from deit_jax.training.refusals import refuse_directory, refuse_early
from deit_jax.training.roll_backs import GoBack
from deit_jax.training.setup import Setup, set_up
from deit_jax.training.stretch import Stretch
from deit_jax.weights.fit import Fitted


def train(
    config: ConfigDict,
    workdir: str,
    *,
    allow_config_change: bool = False,
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Train as the configuration says, or go on from the last checkpoint in `workdir`.

    Args:
        config: validated configuration.
        workdir: directory of this run.
        allow_config_change: continue although the configuration differs from the saved one.
        interruption: what takes the signals; None leaves them as they are.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: the data, the teacher, the weights to start
            from or the directory are not what the configuration needs.
        TrainingStopped: too many steps in a row were not finite, or all of them.
        Interrupted: a signal came; the state is saved.
    """
    workdir = str(Path(workdir).expanduser())
    require_utf8(Path(workdir).absolute())
    if not allow_config_change:
        config = as_begun(workdir, config)
    repeatable = config.training.repeatable and jax.default_backend() == "gpu"
    kernel_choices = Path(workdir).absolute() / "kernel_choices" if repeatable else None
    # All that can be refused is refused before anything is written: the corrected command works.
    saved = saved_steps(Path(workdir) / "checkpoints")
    setup = set_up(config, kernel_choices, start=max(saved, default=0))
    # As many as were counted, where the configuration leaves that to the data.
    config.model.num_classes = setup.config.model.num_classes
    if setup.taught_by:
        # What its weights say they are of.
        config.teacher.name = setup.taught_by["name"]
    names = setup.train_source.class_names
    weights = None if saved else load_initial(setup.config, setup.abstract_state, names)
    refuse_early(setup, max(saved, default=0))
    first = jax.process_index() == 0
    if first:
        refuse_directory(workdir, setup, allow_config_change)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(
            open_run(
                workdir,
                config,
                made_from=made_from(setup, weights) if first else None,
                allow_config_change=allow_config_change,
                class_names=names,
            )
        )
        require_shared(run.path / "config.json")
        checkpoints = stack.enter_context(_checkpoints(run, setup.config.checkpoint))
        if kernel_choices:
            # All processes wait for each other in `Checkpoints`: the run's directory is there.
            kernel_choices.mkdir(exist_ok=True)
        return _to_the_end(setup, run, checkpoints, weights, interruption or Interruption())


def _checkpoints(run: RunDirectory, options: CheckpointOptions) -> Checkpoints:
    return Checkpoints(
        run.checkpoints,
        keep_latest=options.keep_latest,
        keep_every=options.keep_every_steps,
        keep_best=options.keep_best,
    )


def _to_the_end(
    setup: Setup,
    run: RunDirectory,
    checkpoints: Checkpoints,
    weights: Fitted | None,
    interruption: Interruption,
) -> dict[str, Any]:
    """Train to the last step; go back to a checkpoint on the way as often as that is due."""
    carried: Mapping[str, Any] = {}
    while True:
        try:
            with contextlib.ExitStack() as stack:
                return Stretch(setup, run, checkpoints, weights, interruption, stack, carried).go()
        except GoBack as back:
            carried = back.carried
            checkpoints.abandon_after(back.roll_back.back_to)
