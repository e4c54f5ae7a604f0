"""Packed rows give the values and gradients of padded ones: each module, the encoder, the whole objective."""

import functools
import os
import pathlib
import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import synthetic
from gradients import returns_gradients
from numpy.testing import assert_allclose

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.methods.registry import build_method, init_variables
from hrem_jax.models.bert import Bert
from hrem_jax.models.bigru import BiGru
from hrem_jax.ops.packing import unpack
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

VOCABULARY, WORDS, GROUPS = 29, 13, 2
LENGTHS = np.array([3, 13, 2, 5, 7, 11, 2, 2, 5, 3])
PLACES = LENGTHS + np.array([2, 0, 4, 0, 3, 0, 0, 7, 0, 0])  # before augmentation: gaps in the rows


def captions(junk: int = 0):
  """The same captions padded, as `(tokens, mask)`, and packed, as `(tokens, mask, packing)`; `junk` is the padding."""
  mask = np.arange(WORDS) < LENGTHS[:, None]
  tokens = np.where(mask, np.random.default_rng(0).integers(VOCABULARY, size=mask.shape), junk)
  layout = lay_out(PLACES, num_groups=GROUPS, row_width=17)
  return (tokens, mask), pack_rows(tokens, mask, layout, pad=junk)


def make_model(text: str):
  config = synthetic.tiny_config(pathlib.Path('unused'))
  config.model.update(text=text, dtype='float32')
  config.hrem.update(dropout=0.0)
  config.model.bert.update(
    vocab_size=VOCABULARY,
    hidden_size=12,
    num_layers=2,
    num_heads=3,
    intermediate_size=19,
    max_positions=WORDS,
    dropout=0.0,
  )
  config.model.bigru.vocab_size = VOCABULARY
  config.hrem.association.keep = 1.0  # a threshold between nearly equal similarities is a coin
  return config, build_method(config)


def in_float64(tree):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if x.dtype == jnp.float32 else jnp.asarray(x), tree)


def assert_trees_close(first, second, *, tolerance):
  first, second = (flax.traverse_util.flatten_dict(tree, sep='/') for tree in (first, second))
  assert set(first) == set(second)
  for name in first:
    assert first[name].shape == second[name].shape
    assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)


LANGUAGE_MODELS = {
  'bert': functools.partial(Bert, VOCABULARY, 12, 2, 3, 19, WORDS, dropout=0.0),
  'bigru': functools.partial(BiGru, VOCABULARY, 5, 7),
}


def test_some_row_holds_several_captions_and_padding_between_them():
  """Otherwise nothing here would prove anything."""
  packing = captions()[1][2]
  assert max(len(set(row[row >= 0].tolist())) for row in packing.captions) >= 3
  last_words = [np.flatnonzero(row >= 0).max(initial=0) for row in packing.captions]
  assert any((row[:last] < 0).any() for row, last in zip(packing.captions, last_words, strict=True))
  assert len(packing.captions) < len(LENGTHS)


@pytest.mark.parametrize('name', LANGUAGE_MODELS)
def test_language_models_give_each_caption_the_states_of_its_own_row(name, x64):
  model = LANGUAGE_MODELS[name](dtype=jnp.float64)
  (tokens, mask), (rows, row_mask, packing) = captions()
  params = in_float64(jax.jit(model.init)(jax.random.key(0), tokens, mask))
  weights = np.random.default_rng(1).normal(size=(*mask.shape, 12 if name == 'bert' else 7)) * mask[..., None]

  def padded(params):
    return model.apply(params, tokens, mask)

  def packed(params):
    return unpack(model.apply(params, rows, row_mask, packing=packing), packing)

  def states_and_gradients(states):
    def weighted(params):
      found = states(params)
      return jnp.sum(found * weights), found

    gradients, found = jax.jit(jax.grad(weighted, has_aux=True))(params)
    return found, gradients

  (states, expected), (packed_states, actual) = map(states_and_gradients, (padded, packed))
  assert packed_states.shape == states.shape
  assert_allclose(packed_states[mask], states[mask], rtol=0, atol=1e-12)
  assert max(abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.1
  assert_trees_close(actual['params'], expected['params'], tolerance=1e-11)


@pytest.mark.parametrize('name', LANGUAGE_MODELS)
def test_captions_of_a_row_do_not_see_each_other(name):
  """The gradient of one caption's states by the embeddings of tokens that only others have."""
  model = LANGUAGE_MODELS[name]()
  lengths, width = np.array([3, 4]), 5
  mask = np.arange(width) < lengths[:, None]
  tokens = np.where(mask, np.arange(10).reshape(2, 5), VOCABULARY - 1)
  rows, row_mask, packing = pack_rows(tokens, mask, lay_out(lengths + 1, num_groups=1, row_width=9), pad=VOCABULARY - 1)
  assert rows.shape == (1, 9)
  variables = jax.jit(model.init)(jax.random.key(0), tokens, mask)

  def first(params):
    states = unpack(model.apply({'params': params}, rows, row_mask, packing=packing), packing)[0]
    return jnp.sum(states * jnp.arange(1.0, states.size + 1).reshape(states.shape) ** 2)

  gradient = np.asarray(jax.jit(jax.grad(first))(variables['params'])['word_embeddings'])
  assert abs(gradient[:3]).min() > 0
  assert not gradient[3:].any()


@pytest.mark.parametrize('text', ['bert', 'bigru'])
@pytest.mark.parametrize('text_graph', [True, False])
def test_text_encoder_packed_is_padded(text, text_graph):
  config, _ = make_model(text)
  config.hrem.text_graph = text_graph
  method = build_method(config)
  variables = init_variables(method, config, jax.random.key(0))
  padded, packed = captions()
  padded, packed = (jax.tree.map(jnp.asarray, x) for x in (padded, packed))
  encode = jax.jit(functools.partial(method.apply, method='encode_texts'))
  expected = encode(variables, TextInputs(*padded))
  actual = encode(variables, TextInputs(*packed))
  np.testing.assert_array_equal(actual.mask, expected.mask)
  for name in ('embedding', 'pooled', 'fragments'):
    one, other = (x.extras[name] if name == 'pooled' else getattr(x, name) for x in (actual, expected))
    assert one.shape == other.shape
    real = np.asarray(expected.mask) if name == 'fragments' else slice(None)
    assert_allclose(one[real], other[real], rtol=0, atol=1e-5, err_msg=name)
  junk = encode(variables, TextInputs(*captions(junk=VOCABULARY - 1)[1]))
  jax.tree.map(np.testing.assert_array_equal, junk, actual)


def objective_batches(dtype) -> tuple[Batch, Batch]:
  rng, size = np.random.default_rng(2), len(LENGTHS)
  regions = jnp.asarray(rng.normal(size=(size, 7, synthetic.REGION_SIZE)), dtype)
  images = ImageInputs(regions, jnp.arange(7) < rng.integers(1, 8, (size, 1)))
  ids = jnp.asarray([0, 0, 1, 2, 2, 2, 3, 4, 5, 6])
  padded, packed = captions()
  return Batch(images, TextInputs(*padded), ids), Batch(images, TextInputs(*packed), ids)


@pytest.mark.parametrize('text', ['bert', 'bigru'])
def test_a_step_on_packed_rows_is_one_on_padded_rows(text, x64):
  """All terms and all gradients; `train_step` itself runs, with an optimizer that hands the gradients out."""
  config, _ = make_model(text)
  config.model.dtype = 'float64'
  method = build_method(config)
  variables = in_float64(init_variables(method, config, jax.random.key(0)))
  optimizer = returns_gradients(method, config)
  step = jax.jit(
    functools.partial(train_step, seed=0, **steps.options(method, optimizer, graph=True), sample_negatives=False)
  )
  (expected, expected_metrics), (actual, actual_metrics) = (
    step(create_state(variables, optimizer), batch) for batch in objective_batches(jnp.float64)
  )
  assert set(actual_metrics) == set(expected_metrics)
  assert float(expected_metrics['loss/base']) > 0.1
  for name, value in expected_metrics.items():
    assert_allclose(actual_metrics[name], value, rtol=0, atol=1e-10, err_msg=name)
  assert_trees_close(actual.params, expected.params, tolerance=1e-9)
  assert_trees_close(actual.collections, expected.collections, tolerance=0)


SHARDED = """
import re, sys
import jax, numpy as np
sys.path[:0] = sys.argv[1:3]
import test_packing
from hrem_jax.methods.registry import init_variables
from hrem_jax.data.batch import TextInputs
from hrem_jax.sharding import data_mesh, replicate, replicated, split_batch, split_rows

assert jax.device_count() == 2
mesh, (config, method), (padded, packed) = data_mesh(), test_packing.make_model('bert'), test_packing.captions()
variables = init_variables(method, config, jax.random.key(0))
encode = lambda variables, texts: method.apply(variables, texts, method='encode_texts').embedding  # noqa
expected = jax.jit(encode)(variables, TextInputs(*map(jax.numpy.asarray, padded)))
shardings = replicated(mesh), split_rows(mesh)
sharded = jax.jit(encode, in_shardings=shardings, out_shardings=split_rows(mesh))
inputs = replicate(variables, mesh), split_batch(TextInputs(*packed), mesh)
np.testing.assert_allclose(sharded(*inputs), expected, rtol=0, atol=1e-5)
program = sharded.lower(*inputs).compile().as_text()
assert 'gather(' in program
collectives = re.compile('all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter').search
found = [line for line in program.splitlines() if collectives(line)]
assert not found, found
"""


def test_a_device_unpacks_its_groups_without_asking_another_one():
  here = pathlib.Path(__file__)
  environment = os.environ | {
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={GROUPS}',
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(here.parents[2]),
  }
  command = [sys.executable, '-c', SHARDED, str(here.parents[1]), str(here.parent)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
