"""Every configuration is valid, builds its model from shapes alone, and mistakes are named."""

import importlib.util
import json
import pathlib

import jax
import pytest

from hrem_jax import configuration
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import METHODS, build_method, default_config, from_json, init_variables, validate

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / 'configs').glob('*.py'))


ANY_METHOD = {'f8k_frozen', 'f8k_bigru', 'demo'}
VARIANTS = {'f30k_gpo': ('', 'bigru'), 'coco_gpo': ('bert', 'bigru+hardest_at_once'), 'f30k_scan': ('bigru', 'i2t_avg')}
CASES = [
  pytest.param(path, variant, id=f'{path.stem}:{variant}')
  for path in CONFIGS
  for variant in (METHODS if path.stem in ANY_METHOD else VARIANTS.get(path.stem, ('',)))
]


def load(path: pathlib.Path, variant: str = ''):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def test_all_promised_configurations_are_there():
  promised = {'coco_bert', 'coco_bigru', 'demo', 'f30k_bert', 'f30k_bigru', 'f8k_frozen', 'f8k_minilm'}
  promised |= {
    'f8k_bigru',
    *(f'{data}_{method}' for data in ('f30k', 'coco') for method in METHODS if method != 'hrem'),
  }
  promised |= {'own_pictures', 'own_pictures_zero_shot', 'own_pictures_end_to_end'}
  assert promised <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(('path', 'variant'), CASES)
def test_every_configuration_builds(path, variant):
  config = load(path, variant)
  validate(config)
  is_tower, tower = config.model.image == 'tower', config.model.image_tower
  config.model.region_size = config.model.region_size or (tower.patch_size**2 * 3 if is_tower else 13)
  config.model.embedding_size = config.model.embedding_size or config.model.text_tower.projection_size
  validate(config)
  method = build_method(config)
  init = lambda rng: init_variables(method, config, rng)  # noqa: E731
  variables = jax.eval_shape(init, jax.random.key(0))
  size = config.model.embedding_size
  if is_tower:
    assert config.model.region_size == tower.patch_size**2 * 3
  features = tower.hidden_size if is_tower else config.model.region_size
  assert variables['params']['image_encoder']['projection']['linear']['kernel'].shape == (features, size)
  assert {'image_encoder', 'text_encoder'} <= set(variables['params'])
  if config.method == 'hrem':
    assert variables['params']['interaction']['layer']['attention']['query']['kernel'].shape == (size, size)
    assert 'association' in variables['params']
  if path.stem in ANY_METHOD:
    assert config.method == variant


def test_bert_base_has_its_size():
  config = load(next(path for path in CONFIGS if path.stem == 'coco_bert'))
  method = build_method(config)
  variables = jax.eval_shape(lambda rng: init_variables(method, config, rng), jax.random.key(0))
  bert = jax.tree.leaves(variables['params']['text_encoder']['language_model'])
  assert sum(x.size for x in bert) == 109_482_240 - 590_592  # bert-base-uncased without its pooler


def test_both_relevance_mlps_start_from_the_same_weights():
  config = default_config()
  config.model.update(embedding_size=32, region_size=7, text='bigru')
  config.hrem.update(num_heads=4)
  variables = init_variables(build_method(config), config, jax.random.key(0))
  association = variables['params']['association']
  first, second = (association[name]['hidden']['kernel'] for name in ('i2t', 't2i'))
  assert (first == second).all()
  assert abs(first).max() > 0


def test_without_an_instance_level_there_are_no_parameters_for_it():
  config = default_config()
  config.model.update(embedding_size=32, region_size=7, text='bigru')
  config.hrem.update(num_heads=4, interaction='none')
  variables = init_variables(build_method(config), config, jax.random.key(0))
  assert set(variables['params']) == {'image_encoder', 'text_encoder'}


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('loss.base', 'triplet', r"config.loss.base is 'triplet', expected 'distance_weighted' or 'hinge'"),
    (
      'hrem.interaction',
      'fussion',
      r"config.hrem.interaction is 'fussion', expected 'fusion', 'standalone' or 'none'",
    ),
    ('data.length_buckets', (16, 8), r'config.data.length_buckets is \(16, 8\), expected increasing widths'),
    ('data.drop_regions', 1.0, r'config.data.drop_regions is 1.0, expected a probability below 1'),
    ('hrem.num_heads', 3, r'config.model.embedding_size \(1024\) is not divisible by config.hrem.num_heads \(3\)'),
    ('training.batch_size', 1, r'config.training.batch_size is 1, expected at least 2'),
    ('training.batch_size', 130, r'config.training.batch_size \(130\) is not divisible by the 4 devices'),
    ('evaluation.batch_size', 6, r'config.evaluation.batch_size \(6\) is not divisible by the 4 devices'),
    ('evaluation.select_on', 'train', r"config.evaluation.select_on is 'train', expected 'dev' or 'test'"),
  ],
)
def test_settings_that_cannot_work_are_named(key, value, message):
  config = default_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message):
    validate(config, num_devices=4)


TOWER = {'model.text': 'tower', 'model.weights': 'clip'}


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'model.start': 'zeroshot'}, r"config.model.start is 'zeroshot', expected 'random' or 'zero_shot'"),
    ({'model.image': 'pixels'}, r"config.model.image is 'pixels', expected 'regions' or 'tower'"),
    ({**TOWER, 'model.text_tower.causal': False}, r'config.data.pack is True, expected False: the text tower looks at'),
    ({**TOWER, 'model.weights': ''}, r'config.model.weights is empty, expected the folder of the text tower for'),
    ({'model.image': 'tower'}, r'config.model.image_weights is empty, expected the folder of the vision tower for'),
    (
      {'model.image_weights': 'clip'},
      r"config.model.image_weights is for config.model.image='tower', which is 'regions",
    ),
    ({'model.start': 'zero_shot'}, r"begins with what a text tower makes of texts: expected .* found 'bert'"),
    ({'model.start': 'zero_shot', 'model.text': 'bigru'}, r"expected config.model.text='tower' .* found 'bigru'"),
    (
      {**TOWER, 'model.start': 'zero_shot', 'data.source': 'tfds'},
      r"own embeddings \(SPLIT_embeddings.npy\): expected config.data.source='precomputed' .* found 'tfds'",
    ),
    ({**TOWER, 'model.embedding_size': 0}, r"embedding_size is 0, expected positive: only with .*start='zero_shot'"),
    ({'model.embedding_size': -1}, r'config.model.embedding_size is -1, expected 0 or more'),
    ({'optimizer.image_tower_lr_factor': -1.0}, r'image_tower_lr_factor is -1.0, expected 0 or more'),
  ],
)
def test_towers_that_cannot_go_together_are_named(settings, message):
  config = default_config()
  config.update_from_flattened_dict(settings)
  with pytest.raises(UserError, match=message):
    validate(config)


def test_the_file_of_a_configuration_reads_back():
  config = default_config()
  config.training.seed, config.data.length_buckets = 7, (5, 9)
  again = from_json(configuration.to_json(config), source='test')
  assert again.to_dict() == config.to_dict()
  assert configuration.differences(config, again) == []


def test_differences_name_what_changes_the_training():
  first, second = default_config(), default_config()
  second.loss.margin, second.training.num_epochs, second.evaluation.ties = 0.3, 31, 'optimistic'
  assert configuration.differences(first, second) == ['loss.margin 0.2 -> 0.3']


@pytest.mark.parametrize('text', ['{', '[]', json.dumps({'nothing': 1}), json.dumps({'loss': {'marginn': 1}})])
def test_files_that_are_no_configuration(text):
  with pytest.raises(UserError, match='config.json: not a configuration of hrem_jax'):
    from_json(text, source='config.json')
