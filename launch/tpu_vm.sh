#!/usr/bin/env bash
# A TPU VM or a whole pod slice: the same four steps for one worker and for many.
#
#   export NAME=hrem ZONE=us-central2-b TYPE=v4-32 SHARED=10.0.0.2:/share
#   launch/tpu_vm.sh create
#   launch/tpu_vm.sh install          copies this folder to all workers and installs it; again after every change
#   launch/tpu_vm.sh run --config=configs/coco_bert.py --workdir=/mnt/shared/runs/coco --data=/mnt/shared/data
#   launch/tpu_vm.sh delete
#
# All workers run the same command; `hrem_jax` finds the others by itself. Workdir and data must be the same folder on
# all workers: SHARED is an NFS export (Filestore) that `install` mounts at /mnt/shared; one worker does without.
#
# NAME ZONE TYPE    of the TPU (gcloud compute tpus accelerator-types list --zone=ZONE)
# VERSION           of its software, v2-alpha-tpuv6e say; the default is for v4 and older
# SPOT=1            cheaper, and taken away at any time: create it again and run the same command
# DRY_RUN=1         prints the commands
set -euo pipefail

usage() {
  echo "usage: NAME=... ZONE=... [TYPE=...] $0 create | install | run ARGUMENTS OF hrem_jax.main | delete" >&2
  exit 2
}

[[ $# -ge 1 && -n ${NAME:-} && -n ${ZONE:-} ]] || usage
step=$1
shift
tpu=(gcloud compute tpus tpu-vm)

do_it() {
  if [[ -n ${DRY_RUN:-} ]]; then
    echo "$*"
  else
    "$@"
  fi
}

on_all_workers() { # the command is one word: a shell on the worker reads it
  do_it "${tpu[@]}" ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

case $step in
  create)
    [[ -n ${TYPE:-} ]] || usage
    do_it "${tpu[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
      --version="${VERSION:-tpu-ubuntu2204-base}" ${SPOT:+--spot}
    ;;
  install)
    root=$(cd "$(dirname "$0")/.." && pwd)
    archive=$(mktemp)
    trap 'rm -f "$archive"' EXIT
    do_it tar -C "$root" -czf "$archive" --exclude=__pycache__ \
      hrem_jax configs launch requirements.txt setup.cfg pyproject.toml README.md LICENSE
    do_it "${tpu[@]}" scp "$archive" "$NAME:hrem_jax.tar.gz" --zone="$ZONE" --worker=all
    on_all_workers "mkdir -p hrem_jax && tar -C hrem_jax -xzf hrem_jax.tar.gz && cd hrem_jax &&
      python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[tpu]'"
    if [[ -n ${SHARED:-} ]]; then
      on_all_workers "sudo apt-get install -y -q nfs-common && sudo mkdir -p /mnt/shared &&
        (mountpoint -q /mnt/shared || sudo mount -t nfs $SHARED /mnt/shared)"
    fi
    ;;
  run)
    [[ $# -ge 1 ]] || usage
    on_all_workers "cd hrem_jax && .venv/bin/python -m hrem_jax.main$(printf ' %q' "$@")"
    ;;
  delete)
    do_it "${tpu[@]}" delete "$NAME" --zone="$ZONE"
    ;;
  *) usage ;;
esac
