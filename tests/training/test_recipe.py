"""What given weights cannot see of METHOD section 5: where dropout acts, which negatives are drawn, rates and decay.

Numbers stand beside those of the recipe; what is drawn is drawn 10,000 times, to within five standard deviations.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax.traverse_util import flatten_dict

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.models.transformer import Dropout
from hrem_jax.ops.losses import distance_weighted_loss
from hrem_jax.training.setup import make_optimizer

REGION_SIZE, ROWS = 13, 3


def small_config(*, text: str = 'bert', **settings):
  """The recipe's settings in a model of small sizes."""
  config = default_config()
  config.model.update(embedding_size=24, region_size=REGION_SIZE, text=text)
  config.hrem.update(num_heads=2, **settings)
  config.hrem.association.top_k = 3
  config.model.bert.update(
    vocab_size=29, hidden_size=12, num_layers=2, num_heads=2, intermediate_size=20, max_positions=17
  )
  config.model.bigru.update(vocab_size=29, word_size=7)
  return config


def variables_of(config) -> dict:
  return init_variables(build_method(config), config, jax.random.key(0))


def make_batch() -> Batch:
  real = jnp.ones((ROWS, 5), bool)
  texts = TextInputs(jnp.arange(ROWS * 5).reshape(ROWS, 5), real)
  return Batch(ImageInputs(jnp.ones((ROWS, 5, REGION_SIZE)), real), texts, jnp.arange(ROWS))


# --- dropout ----------------------------------------------------------------------------------------------------------

FRAGMENTS, WORDS = (2, ROWS, 5, 24), (ROWS, 5, 24)


def dropouts(config, *, train: bool = True) -> list[tuple[str, tuple[int, ...], float]]:
  """Who drops numbers of which shape at which rate, in order."""
  method, found = build_method(config), []

  def record(call, arguments, keywords, context):
    module = context.module
    if isinstance(module, Dropout) and keywords['train'] and module.rate:
      found.append(('/'.join(module.path[:-1]), arguments[0].shape, module.rate))
    return call(*arguments, **keywords)

  def apply(variables, key):
    options = dict(phase='graph', train=train, rngs={'dropout': key}, mutable=['batch_stats'])
    method.apply(variables, make_batch(), **options)

  with nn.intercept_methods(record):
    jax.eval_shape(apply, jax.eval_shape(lambda: variables_of(config)), jax.random.key(0))
  return found


def layer(path: str, rows: int, asked: int, size: int, hidden: int | None, batch: int = ROWS, rate: float = 0.1) -> set:
  """Of a Transformer layer: attention weights (of two heads), what attention and feed-forward add, and between."""
  places = {
    (f'{path}/attention', (batch, 2, rows, asked), rate),
    (path, (batch, rows, size), rate),
  }
  return places | ({(path, (batch, rows, hidden), rate)} if hidden else set())


GRAPHS = layer('image_encoder/pooling/graph', 5, 5, 24, 24) | layer('text_encoder/pooling/graph', 5, 5, 24, 24)
BERT = {('text_encoder/language_model', (ROWS, 5, 12), 0.1)} | layer(
  'text_encoder/language_model/layers', 5, 5, 12, None
)
FUSION = layer('interaction/layer', 2 * ROWS, 2 * ROWS, 24, 24, batch=1)
STANDALONE = functools.reduce(
  set.__or__,
  (
    layer(f'interaction/{stage}_{side}', ROWS, ROWS, 24, 24, batch=1)
    for stage in ('cross', 'self')
    for side in ('images', 'texts')
  ),
)


@pytest.mark.parametrize(
  ('settings', 'expected'),
  [
    ({}, GRAPHS | BERT | FUSION),
    ({'interaction': 'standalone'}, GRAPHS | BERT | STANDALONE),
    ({'text': 'bigru'}, GRAPHS | FUSION),
  ],
  ids=['bert fusion', 'bert standalone', 'bigru fusion'],
)
def test_dropout_of_a_tenth_acts_in_every_transformer_layer_and_nowhere_else(settings, expected):
  """Not in pooling, not in BERT between its feed-forward products, not in a BiGRU, not before the graphs."""
  config = small_config(**settings)
  found = dropouts(config)
  assert set(found) == expected
  for path, shape, rate in expected:
    if '/layers' not in path:  # a scan is traced more than once
      of_a_layer = path.endswith(('/graph', '/layer', '_images', '_texts'))
      assert found.count((path, shape, rate)) == (3 if of_a_layer else 1), path
  assert dropouts(config, train=False) == []


def test_dropout_acts_in_a_frozen_language_model_too():
  config = small_config(dropout=0.0)
  config.optimizer.language_model_lr_factor = 0.0
  variables = variables_of(config)
  method = build_method(config)
  frozen = {**variables, 'params': make_optimizer(method, config, 1).freeze(variables['params'])}

  @functools.partial(jax.jit, static_argnames='train')
  def encode(key, train):
    options = dict(method='encode_texts', train=train, rngs={'dropout': key})
    return method.apply(frozen, make_batch().texts, **options).embedding

  one, other = (np.asarray(encode(jax.random.key(key), True)) for key in range(2))
  assert np.abs(one - other).min(axis=1).max() > 0
  assert np.abs(one - other).max() > 1e-2
  np.testing.assert_array_equal(encode(jax.random.key(0), False), encode(jax.random.key(1), False))


# --- negatives --------------------------------------------------------------------------------------------------------

DRAWS = 10_000


def test_negatives_are_drawn_by_their_weights_one_for_each_anchor_and_positive():
  """With a margin that all pairs violate the gradient counts: +1 where a negative was drawn, -1 at the positive."""
  rng = np.random.default_rng(0)
  is_positive = oracle.same_image([5, 1, 5, 2, 3, 4, 5])  # images 0, 2 and 6 are the same
  points = rng.normal(size=(2, 7, 3))
  similarity = oracle.cosine(points[0], points[1]).astype(np.float32)
  options = dict(margin=9.0, cutoff=1.9, dimension=5)  # a density that spreads the weights

  @jax.jit
  def mean_gradient(keys):
    gradient = jax.grad(lambda s, key: distance_weighted_loss(s, jnp.asarray(is_positive), key, **options).loss)
    return jax.lax.map(lambda key: gradient(jnp.asarray(similarity), key), keys, batch_size=500).mean(axis=0)

  found = np.asarray(mean_gradient(jax.random.split(jax.random.key(0), DRAWS)))
  expected, variance = np.zeros((7, 7)), np.zeros((7, 7))
  for turn in (lambda x: x, np.transpose):
    positive = turn(is_positive)
    weights = oracle.log_negative_weights(turn(similarity), positive, options['cutoff'], options['dimension'])
    chances, num_positives = oracle.probabilities(weights), positive.sum(axis=1, keepdims=True)
    expected += turn(num_positives * chances - positive)
    variance += turn(num_positives * chances * (1 - chances))
  assert 0 < np.sum(expected == 0) < 20  # beyond the cutoff in both directions
  assert np.all(np.abs(found - expected) <= 5 * np.sqrt(variance / DRAWS) + 1e-4)


# --- rates and decay --------------------------------------------------------------------------------------------------

RATE, DECAY = 5e-4, 1e-4
IS_SLOW = {'text_encoder/language_model': 0.1}  # all others: 1


def factor(path: str) -> float:
  return next((value for prefix, value in IS_SLOW.items() if path.startswith(prefix)), 1.0)


def updated(params: dict, *, gradient: float, step: int, graph: bool) -> dict[str, np.ndarray]:
  """What the first update adds to each parameter, by path, with the recipe's settings and 10 steps an epoch."""
  config = small_config()
  optimizer = make_optimizer(build_method(config), config, 10)
  active = optimizer.active(config.hrem.warmup_steps if graph else 0)
  grads = jax.tree.map(lambda p: jnp.full(p.shape, gradient, p.dtype), params)
  new, _, _ = optimizer.update(grads, optimizer.init(params), params, jnp.asarray(step, jnp.int32), active=active)
  return flatten_dict(
    jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), new, params), sep='/'
  )


@pytest.fixture(scope='module')
def params() -> dict:
  """Everything away from 0, so that decay is seen in biases, too."""
  return jax.tree.map(lambda p: jnp.asarray(1 + jnp.abs(p)), variables_of(small_config())['params'])


def test_every_parameter_decays_by_its_rate_times_1e_4_biases_and_norms_too(params):
  change = updated(params, gradient=0.0, step=0, graph=True)
  old = flatten_dict(params, sep='/')
  assert len(change) == len(old) > 70
  for path, added in change.items():
    wanted = -RATE * factor(path) * DECAY * np.asarray(old[path], np.float64)
    # The parameter itself, about 1, is rounded.
    np.testing.assert_allclose(added, wanted, rtol=0, atol=2 * np.finfo(np.float32).eps, err_msg=path)


@pytest.mark.parametrize(
  ('step', 'rate'), [(0, RATE), (149, RATE), (150, RATE / 10), (249, RATE / 10), (250, RATE / 100)]
)
def test_the_first_step_of_adam_is_the_rate_of_its_epoch_and_a_tenth_for_bert(params, step, rate):
  for path, added in updated(params, gradient=1e-4, step=step, graph=True).items():
    np.testing.assert_allclose(added, -rate * factor(path), rtol=1e-2, atol=2 * np.finfo(np.float32).eps, err_msg=path)


def test_before_the_graph_starts_its_parameters_neither_move_nor_decay(params):
  for path, added in updated(params, gradient=1.0, step=0, graph=False).items():
    assert added.any() != path.startswith(('association/', 'interaction/')), path


def test_the_recipe_is_the_default():
  config = default_config()
  assert (config.optimizer.learning_rate, config.optimizer.weight_decay, config.optimizer.clip_norm) == (
    RATE,
    DECAY,
    2.0,
  )
  assert (config.optimizer.decay_epochs, config.optimizer.decay_factor) == ((15, 25), 0.1)
  assert (config.optimizer.language_model_lr_factor, config.hrem.graph_lr_factor) == (0.1, 1.0)
  assert (config.training.batch_size, config.training.num_epochs, config.hrem.warmup_steps) == (128, 30, 8000)
  assert (config.data.drop_regions, config.data.drop_words) == (0.2, 0.2)
  assert (config.hrem.dropout, config.model.bert.dropout) == (0.1, 0.1)
