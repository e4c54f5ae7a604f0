"""A batch encoded in parts, or with layers computed again, has the numbers of one that is not, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import synthetic
from gradients import returns_gradients
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.models.parts import join_parts, split_parts
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

PARTS, GROUPS, CAPTIONS, WORDS, VOCABULARY = 3, 6, 18, 11, 29


@pytest.mark.parametrize('size', [1, 2])
def test_parts_deal_out_runs_of_rows_and_are_joined_again(size):
  x = np.arange(12 * 5).reshape(12, 5)
  parts = split_parts(x, 3, size)
  assert parts.shape == (3, 4, 5)
  first = {1: [0, 3, 6, 9], 2: [0, 1, 6, 7]}[size]
  assert_array_equal(parts[0], x[first])
  assert_array_equal(join_parts(parts, size), x)


def test_each_part_has_rows_of_every_device():
  """Consecutive rows lie on one device: here 4 devices of 6 rows."""
  device = np.repeat(np.arange(4), 6)
  for part in split_parts(device, 3):
    assert_array_equal(np.bincount(part), [2] * 4)


def make_batch(packed: bool, dtype) -> Batch:
  rng = np.random.default_rng(0)
  lengths = rng.integers(2, WORDS + 1, CAPTIONS)
  mask = np.arange(WORDS) < lengths[:, None]
  tokens = np.where(mask, rng.integers(VOCABULARY, size=mask.shape), 0).astype(np.int32)
  regions = rng.normal(size=(CAPTIONS, 7, synthetic.REGION_SIZE)).astype(dtype)
  images = regions, np.arange(7) < rng.integers(1, 8, (CAPTIONS, 1))
  ids = np.arange(CAPTIONS) // 2
  if not packed:
    return Batch(ImageInputs(*images), TextInputs(tokens, mask), ids)
  packed = pack_rows(tokens, mask, lay_out(lengths, num_groups=GROUPS, row_width=17), pad=0)
  return Batch(ImageInputs(*images), TextInputs(*packed), ids)


def make_step(text: str, **changes):
  """The training step of a model without dropout, which draws differently in parts, and its first state."""
  config = default_config()
  config.model.update(embedding_size=24, region_size=synthetic.REGION_SIZE, text=text)
  config.hrem.update(num_heads=3, dropout=0.0)
  config.model.update(dtype='float64')
  config.model.bert.update(vocab_size=VOCABULARY, hidden_size=12, num_layers=2, num_heads=3, intermediate_size=19)
  config.model.bert.dropout = 0.0
  config.model.bigru.update(vocab_size=VOCABULARY, word_size=5)
  config.hrem.association.keep = 1.0  # a threshold between nearly equal similarities is a coin
  config.model.update(changes)
  method = build_method(config)
  optimizer = returns_gradients(method, config)
  options = dict(**steps.options(method, optimizer, graph=True), sample_negatives=False)
  variables = init_variables(method, config, jax.random.key(0))
  variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
  return jax.jit(functools.partial(train_step, seed=0, **options)), create_state(variables, optimizer)


@pytest.mark.parametrize(
  ('text', 'packed', 'changes'),
  [
    ('bert', True, dict(parts=PARTS)),
    ('bert', False, dict(parts=PARTS)),
    ('bigru', True, dict(parts=PARTS)),
    ('bert', True, dict(remat=True)),
  ],
)
def test_all_terms_and_gradients_are_those_of_the_whole_batch(text, packed, changes, x64):
  batch = make_batch(packed, np.float64)
  (expected, expected_metrics), (actual, actual_metrics) = (
    step(state, batch) for step, state in (make_step(text), make_step(text, **changes))
  )
  assert float(expected_metrics['loss/enhanced']) > 0.1
  for name, value in expected_metrics.items():
    assert_allclose(actual_metrics[name], value, rtol=0, atol=1e-9, err_msg=name)
  assert max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected.params)) > 0.1
  for kind in ('params', 'collections'):
    one, other = getattr(expected, kind), getattr(actual, kind)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(functools.partial(assert_allclose, rtol=0, atol=1e-9), one, other)


def wide_step(**changes):
  """Compiled for a batch whose encoders take most of the memory."""
  config = default_config()
  config.model.update(embedding_size=32, region_size=synthetic.REGION_SIZE)
  config.hrem.update(num_heads=4)
  config.model.bert.update(vocab_size=VOCABULARY, hidden_size=64, num_layers=8, num_heads=4, intermediate_size=256)
  config.model.update(changes)
  method = build_method(config)
  optimizer = make_optimizer(method, config, 5)
  init = lambda rng: create_state(init_variables(method, config, rng), optimizer)  # noqa: E731
  step = functools.partial(train_step, seed=0, **steps.options(method, optimizer, graph=False))
  mask = np.ones((128, 8), bool)
  rows = pack_rows(mask.astype(np.int32), mask, lay_out(mask.sum(axis=1), num_groups=8, row_width=32), pad=0)
  regions = np.zeros((128, 7, synthetic.REGION_SIZE), np.float32)
  batch = Batch(ImageInputs(regions, np.ones((128, 7), bool)), TextInputs(*rows), np.arange(128))
  return jax.jit(step).lower(jax.eval_shape(init, jax.random.key(0)), batch).compile()


def test_parts_and_computing_again_save_memory():
  whole, parts, again = (
    wide_step(**changes).memory_analysis().temp_size_in_bytes for changes in ({}, dict(parts=8), dict(remat=True))
  )
  assert parts < 0.4 * whole
  assert again < 0.5 * whole


def test_every_part_has_dropout_of_its_own():
  """Equal captions and images in all parts: equal embeddings if they shared a mask."""
  config = default_config()
  config.model.update(embedding_size=24, region_size=synthetic.REGION_SIZE, parts=PARTS)
  config.hrem.update(num_heads=3)
  config.model.bert.update(vocab_size=VOCABULARY, hidden_size=12, num_layers=1, num_heads=3, intermediate_size=19)
  method = build_method(config)
  variables = init_variables(method, config, jax.random.key(0))
  inputs = {
    'encode_images': ImageInputs(jnp.ones((PARTS, 7, synthetic.REGION_SIZE)), jnp.ones((PARTS, 7), bool)),
    'encode_texts': TextInputs(jnp.ones((PARTS, WORDS), jnp.int32), jnp.ones((PARTS, WORDS), bool)),
  }
  for name, instances in inputs.items():
    options = dict(method=name, train=True, rngs={'dropout': jax.random.key(1)}, mutable=['batch_stats'])
    embedding = method.apply(variables, instances, **options)[0].embedding
    assert embedding.shape == (PARTS, 24)
    assert len(np.unique(np.asarray(embedding).round(4), axis=0)) == PARTS
