"""The whole run on a tiny data set: train, select, evaluate, go on."""

import json
import pathlib

import jax
import numpy as np
import pytest
import synthetic

from hrem_jax.errors import UserError
from hrem_jax.retrieval.evaluation import evaluate_best
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.run import best_step, load_best, load_test_split, restore_variables
from hrem_jax.sharding import data_mesh
from hrem_jax.training import loop
from hrem_jax.training.progress import read_metrics

NUM_STEPS, STEPS_PER_EPOCH = 36, 12


@pytest.fixture(scope='module')
def config(directory):
  return synthetic.tiny_config(directory)


@pytest.fixture(scope='module')
def whole_run(directory, config) -> tuple[pathlib.Path, dict]:
  """An undisturbed run, and the test metrics that it returned."""
  workdir = directory / 'whole'
  return workdir, loop.train(config, workdir)


def assert_trees_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_it_learns(whole_run):
  _, metrics = whole_run
  assert metrics['rsum'] > 250  # 13 pictures by chance: 225
  reports = [report for report in read_metrics(whole_run[0]) if report['kind'] == 'dev']
  assert reports[-1]['rsum'] > reports[0]['rsum']


def test_reports_hold_every_term(whole_run):
  reports = {report['step']: report for report in read_metrics(whole_run[0]) if report['kind'] == 'train'}
  assert sorted(reports) == list(range(4, NUM_STEPS + 1, 4))
  always = {'loss', 'loss/base', 'gradient_norm', 'learning_rate', 'anchors_without_negatives', 'examples_per_second'}
  graph = {'loss/cross', 'loss/enhanced', 'loss/relation'}
  assert always <= set(reports[12])
  assert not graph & set(reports[12])  # steps 0 to 14 are the warm-up
  assert always | graph <= set(reports[16])
  last = reports[NUM_STEPS]
  total = last['loss/base'] + last['loss/cross'] + last['loss/enhanced'] + 10 * last['loss/relation']
  assert last['loss'] == pytest.approx(total, rel=1e-6)


def test_results_say_what_they_are(whole_run):
  workdir, metrics = whole_run
  results = json.loads((workdir / 'results.json').read_text())
  assert results['select_on'] == 'dev'
  assert results['split'] == 'test'
  assert results['metrics'] == metrics
  assert list((workdir / 'tensorboard').iterdir())


def test_the_newest_and_the_best_checkpoint_are_kept(whole_run):
  workdir, _ = whole_run
  scores = {report['step']: report['rsum'] for report in read_metrics(workdir) if report['kind'] == 'dev'}
  kept = {int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.is_dir()}
  assert kept == {NUM_STEPS, best_step(workdir)}
  assert scores[best_step(workdir)] == max(scores.values())


def test_evaluating_again_gives_the_same(whole_run, capsys):
  workdir, metrics = whole_run
  assert evaluate_best(workdir) == (best_step(workdir), metrics)
  assert f'rSum:{metrics["rsum"]:>17.1f}'.split() == capsys.readouterr().out.splitlines()[-2].split()


def test_tie_rule_can_be_changed_afterwards(whole_run, config):
  changed = config.copy_and_resolve_references()
  changed.evaluation.ties = 'pessimistic'
  assert evaluate_best(whole_run[0], changed)[1]['rsum'] <= whole_run[1]['rsum']
  evaluate_best(whole_run[0])  # puts results.json back


def test_a_run_cut_in_two_ends_bitwise_the_same(directory, config, whole_run):
  """Cut in the middle of an epoch, after the newest checkpoint: steps 21 to 25 are done twice."""
  workdir, interrupted = directory / 'cut', config.copy_and_resolve_references()
  update = loop.CompiledSteps.__call__

  def dying(self, state, batch):
    if int(state.step) == 25:
      raise KeyboardInterrupt
    return update(self, state, batch)

  loop.CompiledSteps.__call__ = dying
  try:
    with pytest.raises(KeyboardInterrupt):
      loop.train(interrupted, workdir)
  finally:
    loop.CompiledSteps.__call__ = update
  assert {int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.is_dir()} >= {24}
  metrics = loop.train(config, workdir)
  assert metrics == whole_run[1]
  assert_trees_equal(synthetic.state_on_disk(workdir, NUM_STEPS), synthetic.state_on_disk(whole_run[0], NUM_STEPS))
  ours, theirs = (
    [{k: v for k, v in report.items() if k != 'examples_per_second'} for report in read_metrics(folder)]
    for folder in (workdir, whole_run[0])
  )
  assert ours == theirs


def test_a_finished_run_only_evaluates(whole_run, config, monkeypatch):
  monkeypatch.setattr(loop.CompiledSteps, '__call__', lambda *_: pytest.fail('no step is left'))
  before = synthetic.state_on_disk(whole_run[0], NUM_STEPS)
  assert loop.train(config, whole_run[0]) == whole_run[1]
  assert_trees_equal(before, synthetic.state_on_disk(whole_run[0], NUM_STEPS))


def test_another_configuration_is_refused(whole_run, config):
  changed = config.copy_and_resolve_references()
  changed.loss.margin = 0.3
  before = (whole_run[0] / 'config.json').read_text()
  with pytest.raises(UserError, match=r'another configuration \(loss.margin 0.2 -> 0.3\)'):
    loop.train(changed, whole_run[0])
  assert (whole_run[0] / 'config.json').read_text() == before


def test_wrong_region_size_is_named_before_anything_is_written(directory, config):
  changed = config.copy_and_resolve_references()
  changed.model.region_size = 17
  with pytest.raises(UserError, match='features of size 13, expected config.model.region_size=17'):
    loop.train(changed, directory / 'never')
  assert not (directory / 'never').exists()


def test_missing_data_is_named(tmp_path, config):
  changed = config.copy_and_resolve_references()
  changed.data.directory = str(tmp_path)
  with pytest.raises(UserError, match='train_ims.npy and train_caps.txt not found; the layout is'):
    loop.train(changed, tmp_path / 'run')


def test_a_broken_model_gets_no_recall(whole_run):
  run, variables, _, _ = load_best(whole_run[0])
  variables['params']['text_encoder']['linear']['bias'] *= np.nan
  with pytest.raises(UserError, match='split test: NaN or infinite embeddings of 65 of 65 captions'):
    Evaluator(run, data_mesh()).evaluate(variables, load_test_split(run.config), protocol='all')


def test_workdirs_that_are_none(tmp_path, whole_run):
  with pytest.raises(UserError, match='config.json: no such file; expected is a workdir'):
    evaluate_best(tmp_path)
  for name in ('config.json', 'tokenizer.json'):
    (tmp_path / name).write_bytes((whole_run[0] / name).read_bytes())
  with pytest.raises(UserError, match='checkpoints: no checkpoint there'):
    evaluate_best(tmp_path)
  with pytest.raises(UserError, match='not a whole checkpoint'):
    restore_variables(tmp_path, 3)
