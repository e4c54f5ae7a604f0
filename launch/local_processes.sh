#!/usr/bin/env bash
# N processes on this machine: tries what runs on a cluster, or gives each GPU a process of its own.
#
#   launch/local_processes.sh N -- --config=configs/demo.py --workdir=runs/demo
#
# When one process fails, the others are ended, too, and its status is that of the script. SIGTERM and Ctrl-C are passed
# on as SIGTERM: all save and end with status 75, and the same command goes on. Process 0 writes as it would alone; what
# the others say has their number in front.
#
# PYTHON=python3     the interpreter
# PORT=12345         of process 0; otherwise one that is free
# PROGRAM=file.py    runs something else that takes --coordinator, --num_processes and --process_id
# DRY_RUN=1          prints the commands
set -euo pipefail

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ || $2 != -- ]]; then
  echo "usage: $0 N -- ARGUMENTS OF hrem_jax.main" >&2
  exit 2
fi
count=$1
shift 2

python=${PYTHON:-python}
program=(-m hrem_jax.main)
[[ -z ${PROGRAM:-} ]] || program=("$PROGRAM")
port=${PORT:-}
if [[ -z $port ]]; then
  port=12345
  [[ -n ${DRY_RUN:-} ]] ||
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
fi

command_of() { # the words of process $1, in `words`
  words=(env "JAX_LOCAL_DEVICE_IDS=$1" "$python" "${program[@]}" "${@:2}"
    "--coordinator=localhost:$port" "--num_processes=$count" "--process_id=$1")
}

if [[ -n ${DRY_RUN:-} ]]; then
  for ((i = 0; i < count; i++)); do
    command_of "$i" "$@"
    echo "${words[*]}"
  done
  exit
fi

pids=() # of those that run, by number
signal_all() {
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$1" "$pid" 2>/dev/null || true; done
}
stopping=
trap 'stopping=yes; signal_all TERM' TERM INT # a shell's background processes ignore Ctrl-C
trap 'signal_all KILL' EXIT     # nothing stays behind

for ((i = 0; i < count; i++)); do
  command_of "$i" "$@"
  if ((i == 0)); then
    "${words[@]}" &
  else
    "${words[@]}" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  fi
  pids[i]=$!
  # A signal that came before its number was noted went to the others only.
  [[ -z $stopping ]] || kill -TERM "${pids[i]}" 2>/dev/null || true
done

# The first status that is not 0 decides. Those that fail alike, or save, get a minute to end by themselves; JAX needs up
# to half of it to notice that one has died.
first=0
deadline=0
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    status=0
    wait "${pids[i]}" || status=$?
    unset "pids[i]"
    if ((status && !first)); then
      first=$status
      deadline=$((SECONDS + (status > 128 ? 1 : 60))) # killed by a signal: the others can only wait
      ((status == 75)) || echo "$0: process $i ended with status $status; ending the others" >&2
    fi
  done
  if ((first && SECONDS >= deadline)); then signal_all KILL; fi
  sleep 0.2
done
exit "$first"
