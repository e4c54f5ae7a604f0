"""The command line as a person uses it: exit codes and messages."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import synthetic
from bad_input.table import Case, attempt

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments: str, module: str = 'hrem_jax.main') -> subprocess.CompletedProcess:
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1'}
  command = [sys.executable, '-m', module, *arguments]
  return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.filterwarnings('ignore:.*load_module')  # how ml_collections loads a configuration
@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'Flag --workdir must have a value'),
    (['--workdir=W/r'], '--config is missing'),
    (['--workdir=W/r', '--config=configs/nothing.py'], 'configs/nothing.py'),
    (['--workdir=W/r', '--config=configs/demo.py', '--config.los.margin=1'], 'the configuration has no key'),
    (['--workdir=W/r', '--config=configs/demo.py', '--config.loss.margin=wide'], 'wide'),
    (
      ['--workdir=W/r', '--config=configs/demo.py', '--config.loss.base=contrastive'],
      "'distance_weighted' or 'hinge'",
    ),
    (
      ['--workdir=W/r', '--config=configs/demo.py', '--config.data.directory=nowhere'],
      'nowhere/demo_precomp: train_ims',
    ),
    (['--workdir=W/r', '--config=configs/demo.py', '--data=nowhere'], 'nowhere/demo_precomp: train_ims'),
    (
      ['--workdir=W/r', '--mode=evaluate', '--config.data.directory=D'],
      '--config.data.directory needs --config=configs/NAME.py; where the data is can be said alone, with --data=',
    ),
    (['--workdir=W/r', '--confi=C'], "Unknown command line flag 'confi'"),
    (['--workdir=W/r', '--mode=evaluate'], 'r/config.json: no such file'),
    (['--workdir=W/r', '--mode=test'], 'train|evaluate'),
    (['--workdir=W/r', 'train'], "unexpected argument 'train'"),
    (['--workdir=W/r', '--config=configs/demo.py:fussion'], "variant 'fussion' is unknown"),
    (['--workdir=W/r', '--config=configs/f30k_bert.py:full'], 'python -m hrem_jax ablate'),
    (['--workdir=W/r', '--workdir=W/other', '--config=configs/demo.py'], '--mode=train takes one --workdir, found 2'),
    (['--workdir=W/r', '--mode=evaluate', '--output=O'], '--output is for several workdirs'),
  ],
)
def test_mistakes_end_in_a_message_and_status_2(tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(ROOT)
  outcome = attempt(Case('', ' '.join(['main', *arguments]), message), tmp_path)
  assert outcome.status == 2, outcome.errors
  assert message in '\n'.join(outcome.errors)
  assert outcome.after == outcome.before == {}


@pytest.mark.parametrize(
  ('module', 'arguments', 'message'),
  [
    ('hrem_jax.main', ['--workdir=W', '--config=configs/demo.py', '--data=nowhere'], 'nowhere/demo_precomp: train_ims'),
    ('hrem_jax', ['report', 'W'], 'W/config.json: no such file'),
  ],
)
def test_mistakes_end_the_program(tmp_path, module, arguments, message):
  """What the tests in this process cannot see: the status, and that nothing else is said."""
  result = run(*(re.sub('W$', f'{tmp_path}/W', argument) for argument in arguments), module=module)
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.startswith('hrem_jax: ')
  assert result.stderr.count('\n') == 1
  assert message in result.stderr
  assert not (tmp_path / 'W').exists()


def test_a_whole_run_by_command(tmp_path):
  """Training, going on, evaluation: as in the README."""
  synthetic.write_data_set(tmp_path)
  config = tmp_path / 'config.py'
  config.write_text(
    f'import pathlib, sys\nsys.path.insert(0, {str(ROOT / "tests")!r})\nimport synthetic\n\n'
    f'def get_config():\n  config = synthetic.tiny_config(pathlib.Path({str(tmp_path)!r}))\n'
    '  config.hrem.dropout = 0.0\n  return config\n'
  )
  flags = [f'--config={config}', f'--workdir={tmp_path / "run"}', '--config.hrem.warmup_steps=1000']
  first = run(*flags, '--config.training.num_epochs=1')
  assert first.returncode == 0, first.stderr
  assert 'steps 0 to 12' in first.stderr
  assert 'rSum:' in first.stdout
  second = run(*flags, '--config.training.num_epochs=2')
  assert second.returncode == 0, second.stderr
  assert 'steps 12 to 24' in second.stderr
  (tmp_path / 'moved').mkdir()
  (tmp_path / 'tiny_precomp').rename(tmp_path / 'moved' / 'tiny_precomp')
  data = f'--data={tmp_path / "moved"}'
  evaluated = run(f'--workdir={tmp_path / "run"}', '--mode=evaluate', data)
  assert evaluated.returncode == 0, evaluated.stderr
  assert evaluated.stdout == second.stdout
  twice = [f'--workdir={tmp_path / "run"}'] * 2
  ensemble = run(*twice, '--mode=evaluate', data, f'--output={tmp_path / "full.json"}')
  assert ensemble.returncode == 0, ensemble.stderr
  assert 'the mean of 2 similarity matrices' in ensemble.stdout
  assert (tmp_path / 'full.json').is_file()
  refused = run(*flags, '--config.loss.margin=0.5', data)
  assert refused.returncode == 2
  assert 'loss.margin 0.2 -> 0.5' in refused.stderr


def test_help_is_no_mistake():
  result = run('--help')
  assert result.returncode == 0, result.stderr
  for flag in ('--config', '--workdir', '--mode', '--data', '--output'):
    assert f'  {flag}: ' in result.stdout


def test_all_variants_are_listed():
  result = run('ablate', '--list', module='hrem_jax')
  assert (result.returncode, result.stderr) == (0, '')
  assert 'standalone_shared  ' in result.stdout
  assert 'full  ' in result.stdout


def test_commands_explain_themselves():
  result = run('--help', module='hrem_jax')
  assert result.returncode == 0
  for command in ('prepare-demo', 'check', 'convert-data', 'report', 'convert', 'export', 'ablate'):
    assert command in result.stdout


@pytest.mark.filterwarnings('ignore:.*load_module')
@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], '--config is missing'),
    (['--config=configs/demo.py', '--config.los.margin=1'], 'the configuration has no key'),
    (['--config=configs/demo.py', 'more'], "unexpected argument 'more'"),
    (['--config=configs/demo.py', '--config.data.directory=nowhere'], 'nowhere/demo_precomp: train_ims'),
    (['--config=configs/demo.py', '--data=nowhere'], 'nowhere/demo_precomp: train_ims'),
  ],
)
def test_mistakes_with_the_configuration_of_a_command(tmp_path, monkeypatch, flags, message):
  monkeypatch.chdir(ROOT)
  outcome = attempt(Case('', ' '.join(['ablate', '--variants=fusion', '--output=W/out', *flags]), message), tmp_path)
  assert outcome.status == 2, outcome.errors
  assert message in outcome.line
  assert outcome.after == outcome.before == {}
