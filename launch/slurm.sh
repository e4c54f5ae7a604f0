#!/bin/bash
# A training under Slurm, one process for each GPU; `hrem_jax` finds the others by itself.
#
#   sbatch launch/slurm.sh --config=configs/coco_bert.py --workdir=/shared/runs/coco_bert --data=/shared/data
#   sbatch --nodes=2 --partition=gpu launch/slurm.sh ...        options of sbatch win over those below
#
# The workdir and the data lie on a file system that all nodes share. Before the time is up and when the job is
# preempted Slurm sends SIGTERM to the processes: they save after the running step and end with status 75, the job goes
# back to the queue, and the same command goes on.
#
# PYTHON=.venv/bin/python    the interpreter; it must be there on all nodes
# DRY_RUN=1                  prints the command (without sbatch: DRY_RUN=1 launch/slurm.sh ...)
#SBATCH --job-name=hrem_jax
#SBATCH --nodes=1
# As many tasks as GPUs on each node. Not --gpus-per-task: JAX gives task I of a node the GPU I, so each must see all.
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# To the processes (not to this script: that would be B:TERM@300), five minutes before the end.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=hrem_jax_%j.log
set -uo pipefail

# A process that fails takes the others with it at once; those that saved end by themselves.
command=(srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m hrem_jax.main "$@")
if [[ -n ${DRY_RUN:-} ]]; then
  echo "${command[*]}"
  exit
fi

"${command[@]}"
status=$?
if ((status == 75)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
