#!/usr/bin/env bash
# One process with all devices of this machine: installs what fits them into .venv, once, and trains.
#
#   launch/one_machine.sh --config=configs/f30k_bert.py --workdir=runs/f30k_bert --data=/data
#
# The exit status is that of `python -m hrem_jax.main`: 75 after SIGTERM, when everything is saved and the same command
# goes on.
#
# EXTRA=cuda13       cuda12 (the default with an NVIDIA GPU), cuda13, tpu (the default with a TPU), or none
# PYTHON=python      an interpreter that has hrem_jax: installs nothing
# DRY_RUN=1          prints the commands
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
do_it() {
  if [[ -n ${DRY_RUN:-} ]]; then
    echo "$*"
  else
    "$@"
  fi
}

if [[ -z ${EXTRA:-} ]]; then
  EXTRA=none
  if nvidia-smi -L >/dev/null 2>&1; then
    EXTRA=cuda12
  elif compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    EXTRA=tpu
  fi
fi

python=${PYTHON:-}
if [[ -z $python ]]; then
  python=$root/.venv/bin/python
  installed=$root/.venv/.launch-$EXTRA
  if [[ ! $installed -nt $root/requirements.txt ]]; then
    [[ -x $python ]] || do_it python3 -m venv "$root/.venv"
    suffix="[$EXTRA]"
    do_it "$python" -m pip install --quiet --editable "$root${suffix#"[none]"}"
    do_it touch "$installed"
  fi
fi
do_it exec "$python" -m hrem_jax.main "$@"
