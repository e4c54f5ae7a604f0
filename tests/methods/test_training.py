"""Methods of each kind in the one loop: learnt, stopped and gone on with, evaluated, averaged, on several devices.

HREM's loop is tested in `tests/training`. The others are slow tests, but one with embeddings and one with scores.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import synthetic
import test_distributed
import twenty_steps
from runs import assert_same_run

import hrem_jax
from hrem_jax.methods.registry import METHODS
from hrem_jax.retrieval.evaluation import evaluate_ensemble
from hrem_jax.training import loop
from hrem_jax.training.preemption import Stopped, StopRequests

ROOT = pathlib.Path(__file__).parents[2]
QUICK = ('gpo', 'scan')
TRAINED = pytest.mark.parametrize(
  'name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS if name != 'hrem']
)


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> pathlib.Path:
  synthetic.compile_less()
  directory = tmp_path_factory.mktemp('methods')
  synthetic.write_data_set(directory)
  return directory


def config_of(directory: pathlib.Path, name: str):
  config = synthetic.tiny_config(directory, name)
  config.data.length_buckets, config.training.log_every_steps = (12,), 1
  return config


@pytest.fixture(scope='module')
def trained(directory):
  """Trains a method when it is first asked for: the workdir, and the metrics of the test split."""
  done = {}

  def train(name: str) -> tuple[pathlib.Path, dict]:
    if name not in done:
      done[name] = directory / name, loop.train(config_of(directory, name), directory / name)
    return done[name]

  return train


@TRAINED
def test_it_learns_and_says_what(trained, name):
  workdir, metrics = trained(name)
  assert metrics['rsum'] > 300  # 13 pictures by chance: 225
  reports = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  scores = [report['rsum'] for report in reports if report['kind'] == 'dev']
  assert scores[-1] > scores[0]
  phases = {report['step']: report['phase'] for report in reports if report['kind'] == 'phase'}
  assert phases == {15: 'hardest'}


@TRAINED
def test_stopped_in_its_second_phase_it_ends_bitwise_the_same(directory, trained, name, monkeypatch):
  whole, workdir = trained(name)[0], directory / f'{name}_stopped'
  with monkeypatch.context() as patch:
    patch.setattr(StopRequests, 'after', lambda self, step: step == 17)
    patch.setattr(StopRequests, 'exit_status', 75)
    with pytest.raises(Stopped):
      loop.train(config_of(directory, name), workdir)
  loop.train(config_of(directory, name), workdir)
  assert_same_run(workdir, whole)


@TRAINED
def test_a_matcher_gives_the_scores_of_the_evaluation(trained, name):
  workdir, metrics = trained(name)
  matcher = hrem_jax.restore(workdir)
  data = pathlib.Path(matcher.config.data.directory) / 'tiny_precomp'
  assert matcher.evaluate(data) == pytest.approx(metrics)
  regions = np.load(data / 'test_ims.npy')[:3]
  captions = (data / 'test_caps.txt').read_text().splitlines()[:4]
  similarity = matcher.similarity(regions, captions)
  assert similarity.shape == (3, 4)
  np.testing.assert_allclose(matcher.similarity(regions[1:2], captions[2:3]), similarity[1:2, 2:3], atol=1e-5)


def test_methods_of_both_kinds_are_averaged(trained, directory):
  members = [trained(name)[0] for name in QUICK]
  metrics = evaluate_ensemble(members, output=directory / 'both.json')
  assert metrics['rsum'] > 300
  results = json.loads((directory / 'both.json').read_text())
  assert [member['metrics'] for member in results['members']] == [trained(name)[1] for name in QUICK]


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in METHODS if name != 'hrem'])
def test_eight_devices_give_the_numbers_of_one(directory, name):
  output = directory / f'{name}.npz'
  program = [sys.executable, ROOT / 'tests' / 'twenty_steps.py', f'--data={directory}', f'--output={output}']
  options = [f'--method={name}', '--num_steps=8', '--warmup_steps=4']
  subprocess.run([*program, *options], env=test_distributed.environment(8), check=True, timeout=600)
  eight = dict(np.load(output))
  assert eight['devices'] == 8
  alone = twenty_steps.run(directory, directory / f'{name}_alone', num_steps=8, warmup_steps=4, method=name)
  biases = sum(key.endswith('mlp_in/bias') and key.startswith('parameter/') for key in alone)  # before a BatchNorm
  test_distributed.assert_same_numbers(eight, alone, num_noise=biases)
