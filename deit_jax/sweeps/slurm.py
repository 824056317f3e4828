"""Running a sweep on a SLURM cluster: a job array, one task for each run."""

import os
import shlex
from collections.abc import Sequence

from deit_jax.sweeps.plan import PlannedRun

# Two minutes before its time is over a task is told so, and saves the step at hand. Requeued tasks
# go on from their last checkpoint; after such an end `scontrol requeue` puts one back. What the
# cluster wants (partition, time, GPUs) is given to sbatch, whose command line counts more.
_HEAD = """\
#!/bin/bash
#SBATCH --job-name=deit_jax
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# For example: sbatch --partition=PARTITION --gpus=8 --time=72:00:00 THIS_FILE
set -euo pipefail
cd {directory}
case "${{SLURM_ARRAY_TASK_ID:?start this file with sbatch}}" in
"""
_TASK = """\
{index})  # {name}
  if [ -e {result} ]; then echo {skipped}; exit 0; fi
  exec {command} ;;
"""
_TAIL = """\
*) echo "There is no task $SLURM_ARRAY_TASK_ID." >&2; exit 2 ;;
esac
"""


def array_script(runs: Sequence[PlannedRun], python: str = "python") -> str:
    """Return the text of a bash script for `sbatch`; every value of it is quoted for the shell."""
    lines = [_HEAD.format(last=len(runs) - 1, directory=shlex.quote(os.getcwd()))]
    for index, run in enumerate(runs):
        lines.append(
            _TASK.format(
                index=index,
                # A comment must stay one line.
                name=" ".join(run.name.split()),
                result=shlex.quote(str(run.workdir / "result.json")),
                skipped=shlex.quote(f"{run.name}: finished before, skipped."),
                command=shlex.join(run.command(python)),
            )
        )
    return "".join([*lines, _TAIL])
