"""Each block of A and S acts where the paper says and nowhere else, in values and in gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragment_pooling import POOLED
from hrem_jax.models.interaction import Fusion, Standalone
from hrem_jax.ops.relations import Relations, cut_blocks

IMAGES, TEXTS, SIZE, HEADS = 5, 7, 12, 3
N = IMAGES + TEXTS
V, U = slice(None, IMAGES), slice(IMAGES, None)
BLOCKS = {'i2i': (V, V), 'i2t': (V, U), 't2i': (U, V), 't2t': (U, U)}
SETTINGS = dict(num_heads=HEADS, dropout=0.0, relevance_weight=1.5)


@pytest.fixture
def batch(x64):
  rng = np.random.default_rng(0)

  def encoded(count: int) -> Encoded:
    pooled = rng.normal(size=(count, SIZE))
    embedding = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return Encoded(jnp.asarray(embedding), extras={POOLED: jnp.asarray(pooled)})

  connection = rng.random((N, N)) < 0.6
  connection |= np.eye(N, dtype=bool)
  connection[:IMAGES, IMAGES] = connection[IMAGES:, 0] = True  # a row of a block is never empty
  relations = Relations(jnp.asarray(connection), jnp.asarray(rng.normal(size=(N, N))))
  return encoded(IMAGES), encoded(TEXTS), relations


def initialised(module, batch):
  params = jax.jit(module.init)(jax.random.key(1), *batch)['params']
  # Biases and norms away from 0 and 1, so that a forgotten one is seen.
  keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
  return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape, x.dtype), params)


def slow_layer(params, x, context, connection, bias):
  """A post-norm layer, row by row, from the equations of METHOD sections 1 and 2."""

  def dense(name, rows, p):
    return rows @ np.asarray(p[name]['kernel']) + np.asarray(p[name]['bias'])

  def norm(name, rows):
    centred = rows - rows.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * np.asarray(params[name]['scale']) + np.asarray(params[name]['bias'])

  attention, width = params['attention'], SIZE // HEADS
  query, key, value = (
    dense(name, rows, attention) for name, rows in (('query', x), ('key', context), ('value', context))
  )
  mixed = np.zeros_like(x)
  for asker in range(len(x)):
    for head in range(HEADS):
      part = slice(head * width, (head + 1) * width)
      asked = [c for c in range(len(context)) if connection[asker, c]]
      logits = np.array([query[asker, part] @ key[c, part] / np.sqrt(width) + bias[asker, c] for c in asked])
      weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
      mixed[asker, part] = sum(weight * value[c, part] for weight, c in zip(weights, asked, strict=True))
  x = norm('attention_norm', x + dense('output', mixed, attention))
  hidden = np.maximum(dense('feed_forward_in', x, params), 0)
  return norm('feed_forward_norm', x + dense('feed_forward_out', hidden, params))


def test_standalone_equals_the_slow_loops(batch):
  images, texts, relations = batch
  module = Standalone(**SETTINGS)
  params = initialised(module, batch)
  A, S = np.asarray(relations.connection), SETTINGS['relevance_weight'] * np.asarray(relations.relevance)
  v, u = np.asarray(images.embedding), np.asarray(texts.embedding)
  v, u = (
    slow_layer(params['cross_images'], v, u, A[V, U], S[V, U]),
    slow_layer(params['cross_texts'], u, v, A[U, V], S[U, V]),
  )
  v = slow_layer(params['self_images'], v, v, A[V, V], S[V, V])
  u = slow_layer(params['self_texts'], u, u, A[U, U], S[U, U])
  found = module.apply({'params': params}, *batch)
  for enhanced, expected in zip(found, (v, u), strict=True):
    oracle.assert_close(enhanced, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-7)


def test_fusion_equals_the_slow_loops(batch):
  images, texts, relations = batch
  module = Fusion(**SETTINGS)
  params = initialised(module, batch)
  instances = np.concatenate([images.embedding, texts.embedding])
  bias = SETTINGS['relevance_weight'] * np.asarray(relations.relevance)
  expected = slow_layer(params['layer'], instances, instances, np.asarray(relations.connection), bias)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  oracle.assert_close(np.concatenate(module.apply({'params': params}, *batch)), expected, atol=1e-7)


@pytest.mark.parametrize('module', [Fusion(**SETTINGS), Standalone(**SETTINGS)], ids=['fusion', 'standalone'])
@pytest.mark.parametrize('block', BLOCKS)
def test_a_block_acts_on_those_who_ask(batch, module, block):
  """`i2i` and `i2t` reach the images' path only, `t2i` and `t2t` the texts', through A and through S."""
  images, texts, relations = batch
  params = initialised(module, batch)
  rows, columns = BLOCKS[block]
  asker, bystander = (0, 1) if block.startswith('i') else (1, 0)

  @jax.jit
  def enhanced(relations):
    return module.apply({'params': params}, images, texts, relations)

  before = enhanced(relations)
  row, column = np.argwhere(np.asarray(relations.connection)[rows, columns])[-1]
  row, column = row + (rows.start or 0), column + (columns.start or 0)
  cut = enhanced(relations.replace(connection=relations.connection.at[row, column].set(False)))
  moved = enhanced(relations.replace(relevance=relations.relevance.at[row, column].add(1.0)))
  for after in (cut, moved):
    assert np.array_equal(after[bystander], before[bystander])
    assert np.abs(after[asker] - before[asker]).max() > 1e-4

  def summed(relevance, path):
    outputs = enhanced(relations.replace(relevance=relevance))
    return jnp.sum(outputs[path] * jax.random.normal(jax.random.key(3), outputs[path].shape))

  gradient = jax.jit(jax.grad(summed), static_argnums=1)
  of_asker, of_bystander = (np.asarray(gradient(relations.relevance, path)) for path in (asker, bystander))
  assert np.abs(of_bystander[rows, columns]).max() == 0
  connected = np.asarray(relations.connection)[rows, columns]
  assert np.abs(of_asker[rows, columns][~connected]).max() == 0  # S has no say where A is False
  assert (np.abs(of_asker[rows, columns][connected]) > 1e-9).mean() > 0.9


def test_cross_attention_starts_from_the_original_embeddings(batch):
  """Texts do not see what images learnt in the same stage: they ask the images' inputs, not their answers."""
  module = Standalone(**SETTINGS)
  params = initialised(module, batch)
  changed = jax.tree.map(lambda x: x + 1.0, params['cross_images'])
  before = module.apply({'params': params}, *batch)
  after = module.apply({'params': {**params, 'cross_images': changed}}, *batch)
  assert np.array_equal(before[1], after[1])
  assert not np.allclose(before[0], after[0])


def test_shared_weights_are_equal_weights(batch):
  shared = Standalone(**SETTINGS, share_weights=True)
  params = initialised(shared, batch)
  assert set(params) == {'cross', 'self'}
  apart = {f'{stage}_{modality}': params[stage] for stage in params for modality in ('images', 'texts')}
  for one, other in zip(
    shared.apply({'params': params}, *batch), Standalone(**SETTINGS).apply({'params': apart}, *batch), strict=True
  ):
    oracle.assert_close(one, other, atol=1e-12)


@pytest.mark.parametrize(('blocks', 'stage'), [('intra', 'self'), ('inter', 'cross')])
def test_a_stage_whose_blocks_are_cut_is_left_out(batch, blocks, stage):
  params = initialised(Standalone(**SETTINGS, blocks=blocks), batch)
  assert set(params) == {f'{stage}_images', f'{stage}_texts'}


def test_intra_only_modalities_do_not_meet(batch):
  images, texts, relations = batch
  relations = relations.replace(connection=cut_blocks(relations.connection, IMAGES, 'intra'))
  others = texts.replace(embedding=-texts.embedding)
  for module in (Fusion(**SETTINGS), Standalone(**SETTINGS, blocks='intra')):
    variables = {'params': initialised(module, batch)}
    before, after = (module.apply(variables, images, x, relations)[0] for x in (texts, others))
    assert np.abs(before - after).max() < 1e-12


def test_cut_blocks_keep_the_rest_and_everyone_himself():
  connection = jnp.zeros((N, N), bool).at[0, 1].set(True).at[0, IMAGES].set(True)
  intra, inter = (np.array(cut_blocks(connection, IMAGES, blocks)) for blocks in ('intra', 'inter'))
  for cut in (intra, inter):
    assert cut.diagonal().all()
    np.fill_diagonal(cut, False)
  assert np.argwhere(intra).tolist() == [[0, 1]]
  assert np.argwhere(inter).tolist() == [[0, IMAGES]]
  assert np.array_equal(cut_blocks(connection, IMAGES, 'all'), connection)


@pytest.mark.parametrize('module', [Fusion, Standalone])
def test_inputs_may_stay_unnormalised(batch, module):
  images, texts, relations = batch
  variables = {'params': initialised(module(**SETTINGS), batch)}
  raw = module(**SETTINGS, normalize_inputs=False)
  same = [x.replace(extras={POOLED: x.embedding}) for x in (images, texts)]
  assert np.array_equal(raw.apply(variables, *same, relations)[0], module(**SETTINGS).apply(variables, *batch)[0])
  assert not np.allclose(raw.apply(variables, *batch)[0], module(**SETTINGS).apply(variables, *batch)[0])
