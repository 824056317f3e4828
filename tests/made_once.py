"""Programs of runs that are made once, however many tests train with them: tracing is most of a
short run."""

from dataclasses import replace

import jax

from deit_jax.schema.learning import CheckpointOptions
from deit_jax.training import setup as setups
from deit_jax.training.step_programs import StepPrograms


def make_once(monkeypatch, programs):
    """Let runs of one configuration and mesh share what is compiled for them.

    Args:
        monkeypatch: undoes it.
        programs: those made so far.
    """
    for name in ("whole", "preparing", "answering", "learning"):
        monkeypatch.setattr(StepPrograms, name, _part(getattr(StepPrograms, name), programs))
    monkeypatch.setattr(setups, "build_programs", _whole(setups.build_programs, programs))
    # Whose plan is traced as well; tests/scale/test_memory_plan.py looks at it.
    monkeypatch.setattr(setups, "say_memory", lambda *_: "")


def _decisive(config):
    """A configuration without what is in no program."""
    return replace(
        config,
        model=replace(config.model, weights=""),
        teacher=replace(config.teacher, labels="", weights=""),
        training=replace(config.training, roll_backs=0, max_skipped_steps=1),
        checkpoint=CheckpointOptions(),
        log=replace(config.log, images=0, tensorboard=False),
    )


def _compiled():
    return jax.config.read("jax_disable_most_optimizations")


def _part(make, programs):
    """A method of `StepPrograms`."""

    def made(self, *arguments):
        key = make.__name__, self.mesh, _decisive(self.config), arguments == (None,), _compiled()
        if key not in programs:
            programs[key] = make(self, *arguments)
        return programs[key]

    return made


def _whole(build, programs):
    """`build_programs`."""

    def made(config, mesh, teacher, **rest):
        key = mesh, _decisive(config), teacher is None, *rest.items(), _compiled()
        if key not in programs:
            programs[key] = build(config, mesh, teacher, **rest)
        found = programs[key]
        return replace(found, steps=replace(found.steps, config=config))

    return made
