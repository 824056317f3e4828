"""Which runs a sweep consists of: every variant of a config file with every seed."""

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from deit_jax.config.command_line import (
    configure,
    expand_config,
    explain_flag_error,
    read_overrides,
)
from deit_jax.config.families import find_config_file, no_config_file

TRAIN_PROGRAM = ("-m", "deit_jax", "train")
"""What follows `python` to train; the same in a checkout and where the package is installed."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of `train.py`.

    Attributes:
        name: of its directory: the variant and the seed.
        experiment: FILE.py:VARIANT.
        workdir: its directory.
        overrides: flags of the form --config.a.b=value, the seed among them.
        config: what train.py will make of them.
    """

    name: str
    experiment: str
    workdir: Path
    overrides: tuple[str, ...]
    config: ConfigDict

    def command(self, python: str = sys.executable) -> list[str]:
        """Return the command line, argument by argument."""
        fixed = [f"--config={self.experiment}", f"--workdir={self.workdir}"]
        return [python, *TRAIN_PROGRAM, *fixed, *self.overrides]

    @property
    def finished(self) -> bool:
        """Whether it has its result."""
        return (self.workdir / "result.json").is_file()


def plan(
    config: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    workdir: str | Path,
    overrides: Sequence[str] = (),
) -> list[PlannedRun]:
    """Return all runs, variant by variant.

    Args:
        config: path of the config file.
        variants: what stands behind its colon.
        seeds: for `config.seed`.
        workdir: directory of the run directories.
        overrides: flags of the form --config.a.b=value for every run. `{seed}` and `{variant}` in a
            value become the run's, so that each student can have the teacher of its own seed.

    Raises:
        FileNotFoundError: there is no such config file.
        ValueError: a variant or an override is wrong, or something is there twice.
    """
    _file(config)
    for what, given in (("variant", variants), ("seed", seeds)):
        twice = [item for item in given if list(given).count(item) > 1]
        if twice:
            raise ValueError(f"The {what} {twice[0]} is given twice; each run is made once.")
    runs = []
    for variant in variants:
        short = variant.replace(",", "-")
        for seed in seeds:
            filled = (f.replace("{seed}", str(seed)).replace("{variant}", short) for f in overrides)
            own = (f"--config.seed={seed}", *filled)
            name = f"{short}-seed{seed}"
            experiment = f"{config}:{variant}"
            runs.append(
                PlannedRun(
                    name, experiment, Path(workdir) / name, own, read_config(experiment, own)
                )
            )
    names = [run.name for run in runs]
    if clash := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"Two variants would both be called {clash}; leave one of them out.")
    return runs


def variants_of(config: str) -> tuple[str, ...]:
    """Return all arguments of a config file, its `ARGUMENTS`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not list any.
    """
    found: tuple[str, ...] = tuple(runpy.run_path(_file(config)).get("ARGUMENTS", ()))
    if not found:
        raise ValueError(f"{config} does not list its arguments; name them with --variants.")
    return found


def _file(config: str) -> str:
    """Return the path of the config file that is meant."""
    path = find_config_file(config)
    if not Path(path).is_file():
        raise FileNotFoundError(no_config_file(config))
    return path


def read_config(experiment: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the configuration that `train.py` gets from a config file and flags.

    Raises:
        ValueError: one of them is wrong; says what train.py would say.
    """
    line = read_overrides(overrides)
    if line.problems:
        raise ValueError(f"{experiment}: {line.problems[0]}")
    values = flags.FlagValues()
    arguments = ["train", *expand_config([f"--config={experiment}"])]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
        if problems := configure(holder.value, line.overrides):
            raise ValueError(problems[0])
    except Exception as error:
        # Whatever a config file raises is its author's to mend.
        raise ValueError(f"{experiment}: {explain_flag_error(error)}") from error
    return holder.value
