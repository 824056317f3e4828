#!/bin/bash
# Training on several nodes that comes back after preemption, the end of its time, or a lost node:
#
#   sbatch --partition=PARTITION cluster/slurm.sh --config configs/deit.py:small \
#       --workdir runs/deit_small --config.data.directory=DIR/imagenet2012/5.1.0
#
# What is given to sbatch counts more than the lines below. One task for each node takes all of its
# GPUs. The directory of the run must lie where all nodes see it.
#SBATCH --job-name=deit_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Three minutes before the end all tasks are told to save the step at hand and leave.
#SBATCH --signal=TERM@180
set -uo pipefail

# Where one task ends, the others end themselves within seconds; --wait is for one that cannot.
srun --wait=120 "${PYTHON:-python}" train.py "$@"
code=$?

# 143, 138 and 140 are SIGTERM, SIGUSR1 and SIGUSR2, which the run has answered by saving; 4 is a
# lost process, 134, 137 and 139 how it was lost. 2 and 3 are for the user, and end the job.
case $code in
4 | 134 | 137 | 138 | 139 | 140 | 143)
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MOST_RESTARTS:-50}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  ;;
esac
exit "$code"
