"""Several processes, one training: found in the environment or told by flags, begun together and ended together."""

import contextlib
import importlib.util
import os
import pathlib
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

import jax
from jax.experimental import multihost_utils

from hrem_jax.errors import UserError, say

# A process that is silent for so long is dead, and JAX ends the others; so long the first to end waits for the rest.
HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 30, 30
# Those that fail alike need not fail in the same moment. The first process ends last: with it JAX ends the others.
GRACE_SECONDS, GRACE_SECONDS_FIRST = 3.0, 6.0
FLAGS = '--coordinator=HOST:PORT --num_processes=N --process_id=I'
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')


class Cluster(NamedTuple):
  """Where JAX can find out by itself how many processes there are."""

  name: str
  method: str | None  # JAX's `cluster_detection_method`; its Kubernetes has no name
  process_id: str  # the variable with the number of this process


@contextlib.contextmanager
def processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Iterator[None]:
  """Connects this process with the others, if there are any; to be entered before JAX looks at its devices.

  With several processes a mistake or an exception inside ends this one with its own status and without waiting for the
  others: they would wait for its part of the next computation, and it for their end. JAX ends them when it is gone.

  Args:
    coordinator: Address of process 0, HOST:PORT, with a free port. All three or none: then a cluster's environment
      decides, and where there is none, nothing happens.
    num_processes: 1 is one process alone, whatever the environment says.
    process_id: Of this process, from 0.

  Raises:
    UserError: The three contradict each other, or the environment does not say enough.
  """
  own = _start(coordinator, num_processes, process_id)
  try:
    yield
  except SystemExit:
    raise  # asked to stop, as all are: the end is waited for
  except BaseException as error:
    if not jax.distributed.is_initialized():
      raise
    _leave(own, error)


def _start(coordinator: str | None, num_processes: int | None, process_id: int | None) -> str | None:
  """Returns the number of this process, where it is known."""
  told = {'coordinator': coordinator, 'num_processes': num_processes, 'process_id': process_id}
  missing = [f'--{name}' for name, value in told.items() if value is None]
  seconds = dict(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS)
  if not missing:
    _check(coordinator, num_processes, process_id)
    if num_processes > 1:
      _say_first(process_id, f'waits for {num_processes} processes at {coordinator}')
      jax.distributed.initialize(
        coordinator, num_processes, process_id, cluster_detection_method='deactivate', **seconds
      )
    return str(process_id)
  if len(missing) < len(told):
    raise UserError(f'{" and ".join(missing)} missing: several processes need {FLAGS}')
  cluster = find_cluster(os.environ)
  if cluster is None:
    return None
  own = os.environ.get(cluster.process_id)
  _say_first(own, f'waits for the processes of {cluster.name}')
  _initialize_in(cluster, **seconds)
  return own


def _leave(own: str | None, error: BaseException) -> NoReturn:
  """Ends this process at once: a regular end waits for the others, and then aborts."""
  if isinstance(error, UserError):
    say(error)
  else:
    traceback.print_exception(error)
  say(f'process {own or "?"} ends, and with it the others; if one of them ended before, its messages say why')
  sys.stdout.flush()
  time.sleep(GRACE_SECONDS if own not in (None, '0') else GRACE_SECONDS_FIRST)
  os._exit(2 if isinstance(error, UserError) else 1)


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
  """What started several processes, by its variables; JAX has none to ask without waiting for processes.

  A Slurm allocation with one task, an interactive shell in a larger one, and a pod that is no part of an indexed job
  are no clusters.

  Raises:
    UserError: There are several processes, and they cannot find each other.
  """
  if int(environment.get('OMPI_COMM_WORLD_SIZE', 1)) > 1:
    if 'OMPI_MCA_orte_hnp_uri' not in environment:
      raise UserError(f'this version of Open MPI does not say where its first process is: {FLAGS}')
    return Cluster('Open MPI', 'ompi', 'OMPI_COMM_WORLD_RANK')
  # An interactive shell has the allocation's number of tasks, but is a step of one.
  num_tasks = int(environment.get('SLURM_STEP_NUM_TASKS') or environment.get('SLURM_NTASKS') or 1)
  if num_tasks > 1 and all(name in environment for name in _SLURM):
    return Cluster('Slurm', 'slurm', 'SLURM_PROCID')
  # JAX, which is imported by now, sets TPU_SKIP_MDS_QUERY where there is no TPU.
  has_tpu = importlib.util.find_spec('libtpu') is not None and 'TPU_SKIP_MDS_QUERY' not in environment
  hosts = environment.get('TPU_PROCESS_ADDRESSES') or environment.get('TPU_WORKER_HOSTNAMES') or ''
  if has_tpu and (',' in hosts or int(environment.get('MEGASCALE_NUM_SLICES', 1)) > 1):
    return Cluster('GKE', 'gketpu' if hosts else 'gcetpu', 'TPU_WORKER_ID')
  if 'KUBERNETES_SERVICE_HOST' in environment:
    return _find_indexed_job(environment)
  return Cluster('Cloud TPU', 'gcetpu', 'TPU_WORKER_ID') if has_tpu and not hosts else None


def _find_indexed_job(environment: Mapping[str, str]) -> Cluster | None:
  if 'JOB_COMPLETION_INDEX' not in environment:
    return None
  if importlib.util.find_spec('kubernetes') is None:
    raise UserError(f'an indexed Kubernetes job needs {FLAGS} (launch/kubernetes.yaml), or `pip install jax[k8s]`')
  return Cluster('Kubernetes', None, 'JOB_COMPLETION_INDEX')


def _initialize_in(cluster: Cluster, **seconds: int) -> None:
  try:
    jax.distributed.initialize(cluster_detection_method=cluster.method, **seconds)
  except (OSError, ValueError) as error:
    if cluster.name != 'Cloud TPU':
      raise UserError(f'{cluster.name} was found, but its processes were not: {error}; {FLAGS} says it') from error
    # Notebook services have TPUs without the metadata of a TPU VM, and one machine.
    _say_first(0, f'no metadata of a TPU VM ({error}): one machine')


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(f'--coordinator is {coordinator!r}, expected HOST:PORT with a port from 1 to 65535')
  if num_processes < 1:
    raise UserError(f'--num_processes is {num_processes}, expected at least 1')
  if not 0 <= process_id < num_processes:
    raise UserError(f'--process_id is {process_id}, expected 0 to {num_processes - 1} (--num_processes - 1)')
  if process_id == 0 and num_processes > 1:
    with socket.socket() as probe:  # JAX would abort without a word about the port
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        probe.bind(('', int(port)))
      except OSError as error:
        raise UserError(f'--coordinator: port {port} of process 0 cannot be used ({error.strerror})') from error


def _say_first(process_id: str | int | None, line: str) -> None:
  """Once for all processes."""
  if str(process_id) == '0':
    say(line)


def check_shared(path: pathlib.Path) -> None:
  """To be called by all processes when process 0 has written a file.

  Raises:
    UserError: Another process does not see it: each would go on from checkpoints of its own.
  """
  if jax.process_count() == 1:
    return
  multihost_utils.sync_global_devices(f'written: {path.name}')
  if not path.is_file():
    raise UserError(
      f'{path}: written by process 0, but not there for process {jax.process_index()}; the workdir must be a folder '
      'that all machines share'
    )
