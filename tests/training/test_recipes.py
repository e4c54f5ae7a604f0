"""The configurations of GPO and SCAN beside the recipes of their papers and public programs, over real epochs.

Known departures: SCAN's program also updates on the last, smaller batch of an epoch; here a batch is always whole. Its
vocabulary counts the words of the dev split, too; ours those of the training captions alone.
"""

import importlib.util
import pathlib

import ml_collections
import pytest

from hrem_jax.methods.registry import METHODS, build_method, validate
from hrem_jax.training.optimizer import REST
from hrem_jax.training.setup import make_optimizer

CONFIGS = pathlib.Path(__file__).parent.parent.parent / 'configs'
STEPS = {'f30k': 145_000 // 128, 'coco': 566_435 // 128}  # captions of the training split, batches of 128

SHARED = {
  'model.embedding_size': 1024,
  'model.region_size': 2048,
  'model.bigru.word_size': 300,
  'loss.base': 'hinge',
  'loss.margin': 0.2,
  'loss.hardest_negative': True,
  'optimizer.clip': 'global',
  'optimizer.clip_norm': 2.0,
  'optimizer.triangle': 0.0,
  'training.batch_size': 128,
  'data.sampler': 'shuffled',
  'evaluation.select_on': 'dev',
}
GPO = SHARED | {
  'optimizer.name': 'adamw',
  'training.num_epochs': 25,
  'data.drop_regions': 0.2,
  'data.drop_words': 0.2,
}
GPO_BERT = GPO | {'model.text': 'bert', 'model.bert.dropout': 0.1, 'optimizer.weight_decay': 1e-4}
GPO_BIGRU = GPO | {'model.text': 'bigru', 'data.min_word_count': 4, 'optimizer.weight_decay': 0.01}
SCAN = SHARED | {
  'model.text': 'bigru',
  'optimizer.name': 'adam',
  'optimizer.weight_decay': 0.0,
  'data.min_word_count': 4,
  'data.drop_regions': 0.0,
  'data.drop_words': 0.0,
  'scan.asks': 'words',
  'scan.inverse_temperature': 9.0,
  'scan.aggregation': 'lse',
  'scan.lse_factor': 6.0,
  'scan.normalisation': 'clipped_l2norm',
}
FOLDS = {'evaluation.protocol': 'coco', 'evaluation.test_split': 'testall'}
# By file and variant: settings; rates of the language model and of the rest by the first epoch that has them; phases.
SUM_FIRST, HARDEST = {0: 'sum', 1: 'hardest'}, {0: 'hardest'}
GPO_RATES = {0: (5e-5, 5e-4), 15: (5e-6, 5e-5)}
SAME_RATES = {0: (5e-4, 5e-4), 15: (5e-5, 5e-5)}
RECIPES = {
  ('f30k_gpo', 'bert'): (GPO_BERT, GPO_RATES, SUM_FIRST),
  ('f30k_gpo', 'bigru'): (GPO_BIGRU, SAME_RATES, SUM_FIRST),
  ('coco_gpo', 'bert'): (GPO_BERT | FOLDS, GPO_RATES, SUM_FIRST),
  ('coco_gpo', 'bigru'): (GPO_BIGRU | FOLDS, SAME_RATES, SUM_FIRST),
  ('f30k_scan', ''): (SCAN | {'training.num_epochs': 30}, {0: (2e-4, 2e-4), 15: (2e-5, 2e-5)}, HARDEST),
  ('coco_scan', ''): (SCAN | FOLDS | {'training.num_epochs': 20}, {0: (5e-4, 5e-4), 10: (5e-5, 5e-5)}, HARDEST),
}
ATTENTION = {  # lambda, mu, who asks
  ('f30k_scan', 't2i_lse'): ('words', 9.0, 'lse', 6.0),
  ('f30k_scan', 't2i_avg'): ('words', 9.0, 'mean', None),
  ('f30k_scan', 'i2t_lse'): ('regions', 4.0, 'lse', 5.0),
  ('f30k_scan', 'i2t_avg'): ('regions', 4.0, 'mean', None),
  ('coco_scan', 't2i_lse'): ('words', 9.0, 'lse', 6.0),
  ('coco_scan', 't2i_avg'): ('words', 9.0, 'mean', None),
  ('coco_scan', 'i2t_lse_coco'): ('regions', 4.0, 'lse', 20.0),
  ('coco_scan', 'i2t_avg'): ('regions', 4.0, 'mean', None),
}


def load(name: str, variant: str) -> ml_collections.ConfigDict:
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def at(spans: dict, epoch: int):
  """The value of the last span that has begun."""
  return spans[max(first for first in spans if first <= epoch)]


@pytest.mark.parametrize('case', RECIPES, ids='-'.join)
def test_settings_are_those_of_the_recipe(case):
  config, (settings, _, _) = load(*case), RECIPES[case]
  validate(config)
  assert config.data.name == case[0].split('_')[0]
  found = {}
  for key in settings:
    value = config
    for part in key.split('.'):
      value = value[part]
    found[key] = value
  assert found == settings


@pytest.mark.parametrize('case', RECIPES, ids='-'.join)
def test_rates_and_phases_change_with_the_real_epochs(case):
  config, (_, rates, phases) = load(*case), RECIPES[case]
  steps, method = STEPS[config.data.name], build_method(config)
  optimizer = make_optimizer(method, config, steps)
  language_model = optimizer.group_of(('text_encoder', 'language_model', 'word_embeddings'))
  assert {*phases.values()} == {*method.phases}
  for group in (('image_encoder', 'projection'), ('image_encoder', 'pooling'), ('text_encoder', 'pooling')):
    assert optimizer.group_of(group) == REST
  for epoch in range(config.training.num_epochs):
    for step in (epoch * steps, (epoch + 1) * steps - 1):
      found = optimizer.rate(language_model, step), optimizer.rate(REST, step)
      assert [float(rate) for rate in found] == pytest.approx(at(rates, epoch)), epoch
      assert method.phase(step, steps) == at(phases, epoch), epoch


@pytest.mark.parametrize('case', ATTENTION, ids='-'.join)
def test_scans_rows_have_their_own_lambda_and_mu(case):
  scan = load(*case).scan
  asks, inverse_temperature, aggregation, lse_factor = ATTENTION[case]
  assert (scan.asks, scan.inverse_temperature, scan.aggregation) == (asks, inverse_temperature, aggregation)
  assert lse_factor in (None, scan.lse_factor)


def test_every_configuration_of_another_method_has_a_recipe():
  files = {path.stem for data in STEPS for method in METHODS for path in CONFIGS.glob(f'{data}_{method}.py')}
  assert {name for name, _ in RECIPES} == files
