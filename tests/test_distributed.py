"""Several processes and devices: found, told, the same numbers, moved checkpoints, and one death ends all."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import runs
import synthetic
import twenty_steps
from jax._src import clusters
from numpy.testing import assert_allclose

from hrem_jax import distributed
from hrem_jax.distributed import check_shared, find_cluster, processes
from hrem_jax.errors import UserError
from hrem_jax.training import loop

ROOT = pathlib.Path(__file__).parent.parent
LAUNCHER = ROOT / 'launch' / 'local_processes.sh'

SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_NTASKS': '4',
  'SLURM_PROCID': '3',
  'SLURM_LOCALID': '1',
  'SLURM_STEP_NODELIST': 'node[01-02]',
  'SLURM_STEP_NUM_TASKS': '4',
}
OPEN_MPI = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1', 'OMPI_COMM_WORLD_LOCAL_RANK': '1'}
WITH_ADDRESS = {'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911'}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1'}
NO_TPU = {'TPU_SKIP_MDS_QUERY': '1'}


@pytest.fixture
def laptop(monkeypatch):
  """No variable of a cluster, wherever the tests run."""
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'TPU_', 'MEGASCALE_', 'KUBERNETES_', 'JOB_COMPLETION_', 'JAX_COORDINATOR')):
      monkeypatch.delenv(name)
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  return monkeypatch


@pytest.fixture
def initialized(laptop):
  """What JAX would have been called with."""
  calls = []
  laptop.setattr(jax.distributed, 'initialize', lambda *args, **options: calls.append((args, options)))
  return calls


@pytest.mark.parametrize(
  ('environment', 'name'),
  [
    ({}, None),
    (SLURM, 'Slurm'),
    (SLURM | {'SLURM_NTASKS': '1', 'SLURM_STEP_NUM_TASKS': '1'}, None),  # an allocation with one task
    (SLURM | {'SLURM_STEP_NUM_TASKS': '1'}, None),  # an interactive shell in an allocation with four
    ({name: SLURM[name] for name in ('SLURM_JOB_ID', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')}, None),  # batch
    (OPEN_MPI | WITH_ADDRESS, 'Open MPI'),
    (SLURM | OPEN_MPI | WITH_ADDRESS, 'Open MPI'),  # mpirun in a Slurm job
    (OPEN_MPI | WITH_ADDRESS | {'OMPI_COMM_WORLD_SIZE': '1'}, None),
    (POD, None),  # a pod that is no part of an indexed job
    (POD | {'JOB_COMPLETION_INDEX': '0'}, 'Kubernetes'),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None),  # TPU variables, but no TPU
  ],
)
def test_clusters_are_told_from_single_machines(environment, name, monkeypatch):
  monkeypatch.setattr(distributed.importlib.util, 'find_spec', lambda module: module == 'kubernetes' or None)
  found = find_cluster(environment | NO_TPU)
  assert (found and found.name) == name
  if name in ('Slurm', 'Open MPI'):  # JAX finds it, too, and by that name
    with monkeypatch.context() as context:
      for variable, value in environment.items():
        context.setenv(variable, value)
      known = {cluster.name: cluster for cluster in clusters.ClusterEnv._cluster_types}
      assert known[found.method].is_env_present()
      assert str(known[found.method].get_process_id()) == environment[found.process_id]


@pytest.mark.parametrize(
  ('environment', 'name'),
  [
    ({}, 'Cloud TPU'),
    ({'TPU_WORKER_HOSTNAMES': 'host-0,host-1', **POD}, 'GKE'),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
    ({'MEGASCALE_NUM_SLICES': '2', 'TPU_PROCESS_ADDRESSES': 'host-0'}, 'GKE'),
    (NO_TPU, None),
  ],
)
def test_tpus_are_looked_for_only_where_there_are_some(environment, name, monkeypatch):
  monkeypatch.setattr(distributed.importlib.util, 'find_spec', lambda module: module == 'libtpu' or None)
  found = find_cluster(environment)
  assert (found and found.name) == name
  assert found is None or found.method in {cluster.name for cluster in clusters.ClusterEnv._cluster_types}


def test_processes_that_cannot_find_each_other(monkeypatch):
  """They would be as many trainings in one workdir."""
  monkeypatch.setattr(distributed.importlib.util, 'find_spec', lambda module: None)
  with pytest.raises(UserError, match='does not say where its first process is: --coordinator=HOST:PORT'):
    find_cluster(OPEN_MPI | NO_TPU)
  with pytest.raises(UserError, match=r'an indexed Kubernetes job needs --coordinator=.* or `pip install jax\[k8s\]`'):
    find_cluster(POD | {'JOB_COMPLETION_INDEX': '1'} | NO_TPU)


def test_a_laptop_stays_silent(initialized, capsys):
  with processes(None, None, None):
    pass
  with processes('localhost:1', 1, 0):  # alone, whatever the environment says
    pass
  assert initialized == []
  assert capsys.readouterr() == ('', '')


def test_a_cluster_is_left_to_jax(initialized, laptop, capsys):
  for name, value in (SLURM | {'SLURM_PROCID': '0'}).items():
    laptop.setenv(name, value)
  with processes(None, None, None):
    pass
  ((arguments, options),) = initialized
  assert (arguments, options['cluster_detection_method']) == ((), 'slurm')
  assert options['heartbeat_timeout_seconds'] <= 30
  assert capsys.readouterr().err == 'hrem_jax: waits for the processes of Slurm\n'


def test_the_flags_win_over_the_environment(initialized, laptop):
  for name, value in SLURM.items():
    laptop.setenv(name, value)
  with processes('host:1234', 2, 1):
    pass
  ((arguments, options),) = initialized
  assert (arguments, options['cluster_detection_method']) == (('host:1234', 2, 1), 'deactivate')


def test_a_tpu_without_metadata_is_one_machine(laptop, capsys):
  laptop.setattr(distributed, 'find_cluster', lambda _: distributed.Cluster('Cloud TPU', 'gcetpu', 'TPU_WORKER_ID'))
  laptop.setattr(jax.distributed, 'initialize', lambda **_: (_ for _ in ()).throw(ValueError('no address')))
  with processes(None, None, None):
    pass
  assert capsys.readouterr().err == 'hrem_jax: no metadata of a TPU VM (no address): one machine\n'
  laptop.setattr(distributed, 'find_cluster', lambda _: distributed.Cluster('Slurm', 'slurm', 'SLURM_PROCID'))
  with (
    pytest.raises(UserError, match='Slurm was found, but its processes were not: no address; --coordinator='),
    processes(None, None, None),
  ):
    pass


@pytest.mark.parametrize(
  ('told', 'message'),
  [
    (
      ('host:1', None, None),
      '--num_processes and --process_id missing: several processes need --coordinator=HOST:PORT',
    ),
    ((None, 2, 0), '--coordinator missing'),
    ((None, None, 0), '--coordinator and --num_processes missing'),
    (('host', 2, 1), "--coordinator is 'host', expected HOST:PORT with a port from 1 to 65535"),
    (('host:http', 2, 1), "--coordinator is 'host:http'"),
    (('host:65536', 2, 1), "--coordinator is 'host:65536'"),
    ((':1234', 2, 1), "--coordinator is ':1234'"),
    (('host:1234', 0, 0), '--num_processes is 0, expected at least 1'),
    (('host:1234', 2, 2), r'--process_id is 2, expected 0 to 1 \(--num_processes - 1\)'),
    (('host:1234', 2, -1), '--process_id is -1'),
  ],
)
def test_flags_that_contradict_each_other(initialized, told, message):
  with pytest.raises(UserError, match=message), processes(*told):
    pass
  assert initialized == []


def test_a_port_that_is_taken(initialized):
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f'port {port} of process 0 cannot be used'), processes(f'host:{port}', 2, 0):
      pass
    with processes(f'host:{port}', 2, 1):  # there, somebody should be listening
      pass
  assert len(initialized) == 1


def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch):
  check_shared(tmp_path / 'config.json')  # one process
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed.multihost_utils, 'sync_global_devices', lambda _: None)
  with pytest.raises(UserError, match=r'config.json: written by process 0, .*a folder that all machines share'):
    check_shared(tmp_path / 'config.json')
  (tmp_path / 'config.json').touch()
  check_shared(tmp_path / 'config.json')


def make_config(directory: pathlib.Path):
  """Small; the graph from the first step, so that one program does."""
  synthetic.compile_less()
  config = synthetic.tiny_config(directory)
  config.data.packing_groups = 8  # on one device, too: dropout is drawn by place in the rows
  config.hrem.warmup_steps = 0
  config.training.update(num_epochs=1, log_every_steps=1, checkpoint_every_steps=1000)
  return config


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> pathlib.Path:
  """The data, and a file with the configuration."""
  directory = tmp_path_factory.mktemp('several')
  synthetic.write_data_set(directory)
  (directory / 'config.py').write_text(
    f'import pathlib, sys\nsys.path.insert(0, {str(ROOT / "tests")!r})\nimport test_distributed\n\n\n'
    f'def get_config():\n  return test_distributed.make_config(pathlib.Path({str(directory)!r}))\n'
  )
  return directory


def environment(devices: int = 1, **more: str) -> dict[str, str]:
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'PYTHON': sys.executable,
    'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    **more,
  }


def flags(directory: pathlib.Path, workdir: pathlib.Path, **changes) -> list[str]:
  config = [f'--config.{key.replace("__", ".")}={value}' for key, value in changes.items()]
  return [f'--config={directory / "config.py"}', f'--workdir={workdir}', *config]


def launch(count: int, arguments: list[str], **more: str) -> subprocess.CompletedProcess:
  command = [LAUNCHER, str(count), '--', *arguments]
  return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=600)


def assert_close(ours: pathlib.Path, theirs: pathlib.Path, step: int, *, atol: float = 1e-4) -> None:
  """Parameters, moments of Adam (sums of every gradient so far), statistics, counts."""
  ours, theirs = (runs.leaves(synthetic.state_on_disk(folder, step)) for folder in (ours, theirs))
  assert ours.keys() == theirs.keys()
  # Without a true gradient Adam moves them by noise, which differs; a mean moves with the bias before BatchNorm.
  noise = [name for name in ours if re.search(r'^/params.*(mlp_in|attention/key)/bias$|mlp_norm/mean$', name)]
  assert len(noise) == 5
  for name in ours.keys() - set(noise):
    assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=atol, err_msg=name)


def assert_same_reports(ours: pathlib.Path, theirs: pathlib.Path) -> None:
  ours, theirs = runs.reports(ours), runs.reports(theirs)
  assert [(report['kind'], report['step']) for report in ours] == [(r['kind'], r['step']) for r in theirs]
  for mine, other in zip(ours, theirs, strict=True):
    assert mine.keys() == other.keys()
    for name in mine.keys() - {'kind'}:
      tolerance = (
        dict(rel=1e-4, abs=1e-6) if mine['kind'] == 'train' else dict(abs=2.0)
      )  # the rank of a caption may turn
      assert mine[name] == pytest.approx(other[name], **tolerance), (mine['kind'], mine['step'], name)


@pytest.fixture(scope='module')
def two(directory) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
  """An epoch by two processes."""
  workdir = directory / 'two'
  return workdir, launch(2, flags(directory, workdir))


@pytest.fixture(scope='module')
def one(directory, two) -> pathlib.Path:
  """The same by this one."""
  loop.train(make_config(directory), directory / 'one')
  return directory / 'one'


def test_two_processes_give_the_numbers_of_one(one, two):
  """Losses over the global batch, all terms; dropout, negatives and augmentation keyed by place."""
  workdir, result = two
  assert result.returncode == 0, result.stderr
  assert_same_reports(workdir, one)
  assert_close(workdir, one, 12)
  ours, theirs = (json.loads((folder / 'results.json').read_text()) for folder in (workdir, one))
  assert {'loss/cross', 'loss/enhanced', 'loss/relation'} <= runs.reports(one)[0].keys()
  assert ours['metrics'] == pytest.approx(theirs['metrics'], abs=2.0)
  assert ours | {'metrics': 0} == theirs | {'metrics': 0}


def test_only_the_first_of_two_processes_writes(one, two):
  workdir, result = two
  # Gloo writes lines of its own to standard output, from all processes at once, so that some are torn.
  table = [
    'test with the checkpoint of step 12, selected on dev',
    'R@1     R@5',
    'Image to text',
    'Text to image',
    'rSum',
    'by chance',
  ]
  assert re.findall('|'.join(map(re.escape, table)), result.stdout) == table, result.stdout
  assert 'hrem_jax on 2 cpu device(s) (cpu), 2 process(es)' in result.stderr
  assert not re.search(r'^\[1\]', result.stderr, re.MULTILINE), result.stderr
  assert {path.name for path in workdir.iterdir()} == {path.name for path in one.iterdir()}
  assert len(list((workdir / 'tensorboard').iterdir())) == 1
  assert (workdir / 'config.json').read_bytes() == (one / 'config.json').read_bytes()


def test_a_checkpoint_moves_from_two_processes_to_one(directory, one, two):
  config = make_config(directory)
  config.training.num_epochs = 2
  workdirs = [shutil.copytree(folder, directory / f'{folder.name}_on') for folder in (two[0], one)]
  for workdir in workdirs:
    loop.train(config, workdir)
  assert_close(*workdirs, 24, atol=1e-3)
  assert_same_reports(*workdirs)


@pytest.mark.slow
def test_checkpoints_move_between_numbers_of_devices(directory):
  """Eight devices, then one, then four: against one device all the way."""
  for name, stages in (('moved', [8, 1, 4]), ('still', [1, 1, 1])):
    for epoch, devices in enumerate(stages):
      arguments = flags(directory, directory / name, training__num_epochs=epoch + 1)
      command = [sys.executable, '-m', 'hrem_jax.main', *arguments]
      subprocess.run(command, env=environment(devices), check=True, timeout=600)
  assert_close(directory / 'moved', directory / 'still', 36, atol=1e-3)
  assert_same_reports(directory / 'moved', directory / 'still')


def assert_same_numbers(ours: dict, theirs: dict, *, num_noise: int = 4) -> dict[str, float]:
  """Of what `twenty_steps` found; returns the largest differences.

  So many parameters have no true gradient: Adam moves them by rounding.
  """
  noise = {name for name in theirs if re.match(r'parameter/.*(mlp_in|attention/key)/bias$', name)}
  assert len(noise) == num_noise
  largest = {}
  for kind, tolerance in (('gradient', 1e-5), ('metric', 1e-4), ('parameter', 1e-4)):
    names = [key for key in theirs if key.startswith(f'{kind}/') and key not in noise]
    for key in names:
      assert_allclose(ours[key], theirs[key], rtol=tolerance, atol=tolerance, err_msg=key)
    largest[kind] = max(float(abs(ours[key] - theirs[key]).max()) for key in names)
  return largest


def test_eight_devices_give_the_numbers_of_one(directory):
  """Losses over the global batch, dropout and negatives keyed by position: nothing depends on the devices."""
  output = directory / 'eight.npz'
  program = [sys.executable, ROOT / 'tests' / 'twenty_steps.py', f'--data={directory}', f'--output={output}']
  subprocess.run([*program, '--num_steps=8', '--warmup_steps=0'], env=environment(8), check=True, timeout=600)
  eight = dict(np.load(output))
  assert eight['devices'] == 8
  assert_same_numbers(eight, twenty_steps.run(directory, directory / 'alone_in_here', num_steps=8, warmup_steps=0))


@pytest.mark.slow
def test_twenty_steps_on_one_eight_and_two(directory, capsys):
  """Every term of 20 steps, every gradient, every parameter: the table of docs/launch.md."""
  program = str(ROOT / 'tests' / 'twenty_steps.py')
  found = {}
  for name, devices in (('1 device', 1), ('8 devices', 8), ('2 processes', 1)):
    output = directory / f'{name}.npz'.replace(' ', '_')
    arguments = [f'--data={directory}', f'--output={output}']
    if name == '2 processes':
      result = launch(2, arguments, PROGRAM=program)
      assert result.returncode == 0, result.stderr
    else:
      subprocess.run([sys.executable, program, *arguments], env=environment(devices), check=True, timeout=600)
    found[name] = dict(np.load(output))
  one = found.pop('1 device')
  for name, others in found.items():
    assert (others['devices'], others['processes']) == ((8, 1) if name == '8 devices' else (2, 2))
    for kind, largest in assert_same_numbers(others, one).items():
      with capsys.disabled():
        print(f'\n{name}: largest absolute difference of kind {kind} {largest:.1e}', end='')


def port() -> int:
  with socket.socket() as free:
    free.bind(('', 0))
    return free.getsockname()[1]


def start_pair(directory: pathlib.Path, workdir: pathlib.Path, *others: str) -> list[subprocess.Popen]:
  """Two processes without the launcher, which would end the second; `others` are flags of process 1 only."""
  command = [sys.executable, '-m', 'hrem_jax.main', f'--coordinator=localhost:{port()}', '--num_processes=2']
  command += flags(directory, workdir, training__num_epochs=500, training__log_every_steps=2)
  commands = [*command, '--process_id=0'], [*command, '--process_id=1', *others]
  options = dict(env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  return [subprocess.Popen(command, **options) for command in commands]


def wait_for_steps(workdir: pathlib.Path, process: subprocess.Popen) -> None:
  deadline = time.monotonic() + 300
  while not (workdir / 'metrics.jsonl').is_file() or not (workdir / 'metrics.jsonl').read_text():
    assert time.monotonic() < deadline
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize('dead', [0, 1])
def test_a_dead_process_ends_the_other_within_a_minute(directory, dead):
  workdir = directory / f'dead{dead}'
  pair = start_pair(directory, workdir)
  try:
    wait_for_steps(workdir, pair[0])
    pair[dead].kill()
    started = time.monotonic()
    output, _ = pair[1 - dead].communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert pair[1 - dead].returncode not in (0, 75)
    assert re.search('process died|heartbeat|ends, and with it the others|coordination service', output), output
  finally:
    for process in pair:
      process.kill()
      process.communicate()


@pytest.mark.slow
def test_a_mistake_of_one_process_ends_the_other_within_a_minute(directory):
  """It keeps its own status and message: the data is missing on one machine only."""
  pair = start_pair(directory, directory / 'alone', '--data=/nowhere')
  try:
    output, _ = pair[1].communicate(timeout=120)
    assert pair[1].returncode == 2, output
    assert 'hrem_jax: /nowhere/tiny_precomp: train_ims.npy' in output
    assert 'hrem_jax: process 1 ends, and with it the others' in output
    assert 'Traceback' not in output
    pair[0].communicate(timeout=60)
    assert pair[0].returncode not in (0, 75)
  finally:
    for process in pair:
      process.kill()
      process.communicate()


@pytest.mark.slow
def test_a_mistake_of_all_processes_is_status_2(directory):
  result = launch(2, flags(directory, directory / 'never', data__directory='nowhere'))
  assert result.returncode == 2, result.stderr
  assert 'hrem_jax: nowhere/tiny_precomp: train_ims.npy' in result.stderr
  assert '[1] hrem_jax: nowhere/tiny_precomp: train_ims.npy' in result.stderr
  assert not (directory / 'never').exists()


@pytest.mark.slow
def test_the_launcher_passes_sigterm_on_and_the_same_command_goes_on(directory, one):
  workdir = directory / 'stopped'
  command = [LAUNCHER, '2', '--', *flags(directory, workdir)]
  process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  wait_for_steps(workdir, process)
  process.send_signal(signal.SIGTERM)
  _, stderr = process.communicate(timeout=120)
  assert process.returncode == 75, stderr
  stopped_at = int(re.search(r'stopped after step (\d+) as asked', stderr)[1])
  assert 0 < stopped_at < 12
  result = launch(2, flags(directory, workdir))
  assert result.returncode == 0, result.stderr
  assert f'steps {stopped_at} to 12' in result.stderr
  assert_same_reports(workdir, one)
  assert_close(workdir, one, 12)


@pytest.mark.slow
def test_the_launcher_ends_the_others_at_once(directory):
  """And says in one line who was first."""
  workdir = directory / 'killed'
  command = [LAUNCHER, '2', '--', *flags(directory, workdir, training__num_epochs=500)]
  process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  wait_for_steps(workdir, process)
  children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
  second = [pid for pid in children if b'--process_id=1' in pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()]
  os.kill(int(second[0]), signal.SIGKILL)
  started = time.monotonic()
  _, stderr = process.communicate(timeout=60)
  assert time.monotonic() - started < 10
  assert process.returncode == 137
  assert 'process 1 ended with status 137; ending the others' in stderr
