"""The distribution of every parameter before the first step, each by its name, against METHOD section 5.

Those of the other methods are of their papers' public programs.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import towers
from flax.traverse_util import flatten_dict

from hrem_jax.methods.registry import METHODS, build_method, default_config, init_variables
from hrem_jax.models.image_encoder import RegionProjection
from hrem_jax.models.pre_norm import LayerSizes
from hrem_jax.models.start_values import torch_default
from hrem_jax.models.vision_tower import VisionTower

DRAWS = 32  # models that are looked at: a bias of one number is a sample of 32
D, REGION, WORD, K = 24, 13, 11, 5  # embedding, region, word, strongest matches
HIDDEN, INTERMEDIATE = 12, 20  # of BERT and of towers


@dataclasses.dataclass(frozen=True)
class Uniform:
  """U(-bound, bound)."""

  bound: float

  def check(self, draws: np.ndarray) -> None:
    values = draws.ravel() / self.bound
    assert np.abs(values).max() <= 1 + 1e-6
    # The largest of n magnitudes is below 1 - t with probability (1 - t)^n, here e^-16.
    assert np.abs(values).max() >= 1 - 16 / values.size
    looks_like(values, scipy.stats.uniform(-1, 2), variance=1 / 3, variance_of_squares=4 / 45)


class Normal(Uniform):
  """N(0, deviation), the deviation being `bound`."""

  def check(self, draws: np.ndarray) -> None:
    looks_like(draws.ravel() / self.bound, scipy.stats.norm, variance=1, variance_of_squares=2)


@dataclasses.dataclass(frozen=True)
class Constant:
  value: float

  def check(self, draws: np.ndarray) -> None:
    assert (draws == self.value).all()


def looks_like(values: np.ndarray, distribution, *, variance: float, variance_of_squares: float) -> None:
  """Mean and variance to within five standard errors, and the whole distribution."""
  assert abs(values.mean()) < 5 * np.sqrt(variance / values.size)
  assert abs((values**2).mean() - variance) < 5 * np.sqrt(variance_of_squares / values.size)
  assert scipy.stats.kstest(values, distribution.cdf).pvalue > 1e-4


def xavier(inputs: int, outputs: int) -> Uniform:
  return Uniform(np.sqrt(6 / (inputs + outputs)))


def torch(inputs: int) -> Uniform:
  return Uniform(1 / np.sqrt(inputs))


ZERO, ONE, BERT = Constant(0), Constant(1), Normal(0.02)


def linear(name: str, weights, biases) -> dict:
  return {f'{name}/kernel': weights, f'{name}/bias': biases}


def norm(name: str) -> dict:
  return {f'{name}/scale': ONE, f'{name}/bias': ZERO}


def layer(name: str, d: int = D) -> dict:
  """A Transformer layer of ours, as PyTorch starts it: Xavier sees query, key and value as one matrix [d, 3 d]."""
  return (
    linear(f'{name}/attention/query', xavier(d, 3 * d), ZERO)
    | linear(f'{name}/attention/key', xavier(d, 3 * d), ZERO)
    | linear(f'{name}/attention/value', xavier(d, 3 * d), ZERO)
    | linear(f'{name}/attention/output', torch(d), ZERO)
    | norm(f'{name}/attention_norm')
    | linear(f'{name}/feed_forward_in', torch(d), torch(d))
    | linear(f'{name}/feed_forward_out', torch(d), torch(d))
    | norm(f'{name}/feed_forward_norm')
  )


def bert_attention(name: str) -> dict:
  parts = (linear(f'{name}/{part}', BERT, ZERO) for part in ('query', 'key', 'value', 'output'))
  return functools.reduce(dict.__or__, parts)


def bert_feed_forward(name: str) -> dict:
  return linear(f'{name}feed_forward_in', BERT, ZERO) | linear(f'{name}feed_forward_out', BERT, ZERO)


def bert_layers(name: str, feed_forward: str = '') -> dict:
  norms = norm(f'{name}/attention_norm') | norm(f'{name}/feed_forward_norm')
  return bert_attention(f'{name}/attention') | bert_feed_forward(f'{name}/{feed_forward}') | norms


def under(prefix: str, table: dict) -> dict:
  return {f'{prefix}/{name}': value for name, value in table.items()}


IMAGES = under(
  'image_encoder',
  linear('projection/linear', xavier(REGION, D), ZERO)
  | linear('projection/mlp_in', xavier(REGION, D // 2), ZERO)
  | norm('projection/mlp_norm')
  | linear('projection/mlp_out', xavier(D // 2, D), ZERO)
  | layer('pooling/graph'),
)
TEXT_GRAPH = layer('text_encoder/pooling/graph')


def text(states: int) -> dict:
  return linear('text_encoder/linear', torch(states), torch(states))


BERT_MODEL = under(
  'text_encoder/language_model',
  dict.fromkeys(('word_embeddings', 'position_embeddings', 'token_type_embeddings'), BERT)
  | norm('embedding_norm')
  | bert_layers('layers'),
)


def gru(name: str, size: int = D) -> dict:
  own = {f'{name}/recurrent_kernel': torch(size), f'{name}/recurrent_bias': torch(size)}
  return linear(f'{name}/input', torch(size), torch(size)) | own


BIGRU_MODEL = under('text_encoder/language_model', {'word_embeddings': Uniform(0.1)} | gru('forward') | gru('backward'))
RELEVANCE = linear('hidden', torch(K), torch(K)) | linear('output', torch(K), torch(K))
ASSOCIATION = under('association', under('i2t', RELEVANCE) | under('t2i', RELEVANCE))
FUSION = layer('interaction/layer')
SHARED = layer('interaction/cross') | layer('interaction/self')
STANDALONE = functools.reduce(
  dict.__or__, (layer(f'interaction/{n}') for n in ('cross_images', 'cross_texts', 'self_images', 'self_texts'))
)
TEXT_TOWER = under(
  'text_encoder/language_model',
  {'word_embeddings': BERT, 'position_embeddings': BERT, 'projection/kernel': BERT}
  | bert_layers('layers', 'feed_forward/')
  | norm('final_norm'),
)
VISION_LAYERS = bert_layers('layers', 'feed_forward/') | {'position_embeddings': BERT, 'patch_embedding/kernel': BERT}
CLIP = VISION_LAYERS | {'class_token': BERT, 'projection/kernel': BERT} | norm('embedding_norm') | norm('final_norm')
GAINS = {f'{encoder}/residual/gain': ZERO for encoder in ('image_encoder', 'text_encoder')}
ON_TOWER = {  # its regions are states
  **{name: value for name, value in IMAGES.items() if '/graph/' not in name},
  'image_encoder/projection/linear/kernel': xavier(HIDDEN, 16),
  'image_encoder/projection/mlp_in/kernel': xavier(HIDDEN, 8),
  'image_encoder/projection/mlp_out/kernel': xavier(8, 16),
}


POOLING_BY_RANK = (
  gru('pooling/forward', 32) | gru('pooling/backward', 32) | {'pooling/score/kernel': torch(32)}  # 32 positions, too
)
GPO = under('text_encoder', POOLING_BY_RANK) | under(
  'image_encoder',
  linear('projection/linear', xavier(REGION, D), ZERO)
  | linear('projection/mlp_in', torch(REGION), torch(REGION))
  | norm('projection/mlp_norm')
  | linear('projection/mlp_out', torch(D // 2), torch(D // 2))
  | POOLING_BY_RANK,
)


def small(method: str, text: str):
  config = default_config(method)
  config.model.update(embedding_size=D, region_size=REGION, text=text)
  config.model.bert.update(
    vocab_size=29, hidden_size=HIDDEN, num_layers=2, num_heads=2, intermediate_size=INTERMEDIATE, max_positions=17
  )
  config.model.bigru.update(vocab_size=29, word_size=WORD)
  return config


def hrem(*, text: str = 'bert', **settings):
  config = small('hrem', text)
  config.hrem.update(num_heads=2, **settings)
  config.hrem.association.top_k = K
  return config


TABLES = {
  'bert fusion': (hrem(), IMAGES | text(HIDDEN) | TEXT_GRAPH | BERT_MODEL | ASSOCIATION | FUSION),
  'bigru fusion': (hrem(text='bigru'), IMAGES | text(D) | TEXT_GRAPH | BIGRU_MODEL | ASSOCIATION | FUSION),
  'bigru standalone': (
    hrem(text='bigru', interaction='standalone'),
    IMAGES | text(D) | TEXT_GRAPH | BIGRU_MODEL | ASSOCIATION | STANDALONE,
  ),
  'bert standalone shared': (
    hrem(interaction='standalone', share_weights=True),
    IMAGES | text(HIDDEN) | TEXT_GRAPH | BERT_MODEL | ASSOCIATION | SHARED,
  ),
  'towers': (
    towers.tower_config(image='tower'),
    GAINS
    | ON_TOWER
    | under('image_encoder/tower', CLIP)
    | text(HIDDEN)
    | TEXT_TOWER
    | under('association', {f'{way}/{n}': torch(3) for way in ('i2t', 't2i') for n in RELEVANCE})
    | layer('interaction/layer', 16),
  ),
  'gpo bert': (small('gpo', 'bert'), GPO | text(HIDDEN) | BERT_MODEL),
  'gpo bigru': (small('gpo', 'bigru'), GPO | BIGRU_MODEL),
  'scan': (small('scan', 'bigru'), linear('image_encoder/projection/linear', xavier(REGION, D), ZERO) | BIGRU_MODEL),
}


@functools.cache
def drawn(name: str) -> dict[str, dict[str, np.ndarray]]:
  """`DRAWS` draws of each variable of a model, by collection and path."""
  config, _ = TABLES[name]
  init = functools.partial(init_variables, build_method(config), config)
  variables = jax.device_get(jax.jit(jax.vmap(lambda key: init(key)))(jax.random.split(jax.random.key(0), DRAWS)))
  return {collection: flatten_dict(tree, sep='/') for collection, tree in variables.items()}


def check(draws: dict[str, np.ndarray], table: dict) -> None:
  assert draws.keys() == table.keys()
  for name, expected in table.items():
    try:
      expected.check(draws[name])
    except AssertionError as error:
      raise AssertionError(f'{name} is not {expected}') from error


def test_every_method_has_a_table():
  assert {config.method for config, _ in TABLES.values()} == METHODS.keys()


@pytest.mark.parametrize('name', TABLES)
def test_every_parameter_begins_as_the_table_says(name):
  check(drawn(name)['params'], TABLES[name][1])


@pytest.mark.parametrize('name', TABLES)
def test_running_statistics_begin_at_0_and_1(name):
  prefix = 'image_encoder/projection/mlp_norm'
  has_norm = f'{prefix}/scale' in TABLES[name][1]
  expected = {f'{prefix}/mean': ZERO, f'{prefix}/variance': ONE} if has_norm else {}
  check(drawn(name).get('batch_stats', {}), expected)


@pytest.mark.parametrize('name', TABLES)
def test_random_parameters_are_drawn_apart_except_those_of_the_two_relevance_mlps(name):
  params = drawn(name)['params']
  random = {path for path, expected in TABLES[name][1].items() if not isinstance(expected, Constant)}
  # Each layer of a stack counts: those of one draw must differ, too.
  arrays = [(path, array) for path in sorted(random) for array in parts(path, params[path])]
  same = {(a, b) for (a, x), (b, y) in itertools.combinations(arrays, 2) if x.shape == y.shape and (x == y).all()}
  assert same == {
    (f'association/i2t/{n}', f'association/t2i/{n}') for n in RELEVANCE if f'association/i2t/{n}' in params
  }


def parts(path: str, draws: np.ndarray) -> list[np.ndarray]:
  """What was drawn for a path, one for each layer of a stack."""
  return list(np.moveaxis(draws, 1, 0)) if '/layers/' in path else [draws]


def vision(**settings):
  sizes = LayerSizes(
    HIDDEN, 2, 2, INTERMEDIATE, **{k: settings.pop(k) for k in ('gated', 'layer_scale') if k in settings}
  )
  return VisionTower(sizes, image_size=12, patch_size=4, **settings)


OTHER_TOWERS = {
  'dinov2': (
    vision(gated=True, layer_scale=True, num_registers=2),
    VISION_LAYERS
    | {'class_token': BERT, 'registers': BERT, 'patch_embedding/bias': ZERO}
    | {'layers/attention_scale': ONE, 'layers/feed_forward_scale': ONE}
    | norm('final_norm'),
  ),
  'siglip': (
    vision(class_token=False, pooling='attention'),
    VISION_LAYERS
    | {'patch_embedding/bias': ZERO, 'head/question': BERT}
    | norm('final_norm')
    | bert_attention('head/attention')
    | norm('head/feed_forward_norm')
    | bert_feed_forward('head/feed_forward/'),
  ),
}


@pytest.mark.parametrize('name', OTHER_TOWERS)
def test_towers_begin_as_a_bert_does(name):
  module, table = OTHER_TOWERS[name]
  init = jax.jit(jax.vmap(lambda key: module.init(key, jnp.zeros((1, 12, 12, 3)))['params']))
  check(flatten_dict(jax.device_get(init(jax.random.split(jax.random.key(1), DRAWS))), sep='/'), table)


def test_a_projection_may_start_its_perceptron_in_another_way():
  module = RegionProjection(D, mlp_start=torch_default)
  inputs = jnp.zeros((2, 3, REGION)), jnp.ones((2, 3), bool)
  init = jax.jit(jax.vmap(lambda key: module.init(key, *inputs)['params']))
  check(
    flatten_dict(jax.device_get(init(jax.random.split(jax.random.key(2), DRAWS))), sep='/'),
    linear('linear', xavier(REGION, D), ZERO)
    | linear('mlp_in', torch(REGION), torch(REGION))
    | norm('mlp_norm')
    | linear('mlp_out', torch(D // 2), torch(D // 2)),
  )
