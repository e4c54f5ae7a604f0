"""Invariances of the encoders: padding, batch mates and widths do not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.models.bigru import BiGru, Gru

REGIONS, WORDS, REGION_SIZE, VOCABULARY = 7, 11, 13, 29
COUNTS = np.array([7, 3, 1, 5, 2])


@pytest.fixture(scope='module', params=['bert', 'bigru'])
def encoders(request):
  config = default_config()
  config.hrem.num_heads = 4
  config.model.update(embedding_size=32, region_size=REGION_SIZE, text=request.param)
  config.model.bert.update(
    vocab_size=VOCABULARY, hidden_size=12, num_layers=3, num_heads=3, intermediate_size=17, max_positions=23
  )
  config.model.bigru.update(vocab_size=VOCABULARY, word_size=5)
  method = build_method(config)
  return method, init_variables(method, config, jax.random.key(0))


def images_and_texts():
  rng = np.random.default_rng(1)
  regions = rng.normal(size=(5, REGIONS, REGION_SIZE)).astype(np.float32)
  tokens = rng.integers(VOCABULARY, size=(5, WORDS))
  return (regions, np.arange(REGIONS) < COUNTS[:, None]), (tokens, np.arange(WORDS) < COUNTS[:, None] + 2)


def encode(encoders, images, texts):
  method, variables = encoders

  @jax.jit
  def embeddings(variables, images, texts):
    images = method.apply(variables, ImageInputs(*images), method='encode_images')
    texts = method.apply(variables, TextInputs(*texts), method='encode_texts')
    return [images.embedding, texts.embedding]

  return [np.asarray(embedding) for embedding in embeddings(variables, images, texts)]


def test_embeddings_have_unit_norm(encoders):
  for embedding in encode(encoders, *images_and_texts()):
    assert embedding.shape == (5, 32)
    assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, rtol=1e-6)


def test_junk_in_padding_changes_nothing(encoders):
  (regions, region_mask), (tokens, word_mask) = images_and_texts()
  junk = np.where(region_mask[..., None], regions, 1e4), np.where(word_mask, tokens, 3)
  before = encode(encoders, (regions, region_mask), (tokens, word_mask))
  after = encode(encoders, (junk[0], region_mask), (junk[1], word_mask))
  for first, second in zip(before, after, strict=True):
    assert_allclose(first, second, atol=1e-6)


def test_wider_padding_and_other_batch_mates_change_nothing(encoders):
  images, texts = images_and_texts()
  before = encode(encoders, images, texts)
  order = [3, 1, 4]
  wider = [
    (np.pad(x[order], [(0, 0), (0, 4)] + [(0, 0)] * (x.ndim - 2)), np.pad(mask[order], [(0, 0), (0, 4)]))
    for x, mask in (images, texts)
  ]
  for first, second in zip(before, encode(encoders, *wider), strict=True):
    assert_allclose(first[order], second, atol=1e-6)


def test_images_do_not_depend_on_the_order_of_regions_but_texts_on_that_of_words(encoders):
  (regions, region_mask), (tokens, word_mask) = images_and_texts()
  before = encode(encoders, (regions, region_mask), (tokens, word_mask))
  reversed_images = (regions[:, ::-1], region_mask[:, ::-1])
  reversed_texts = (np.where(word_mask, np.roll(tokens, 1, axis=1), 0), word_mask)
  after = encode(encoders, reversed_images, reversed_texts)
  assert_allclose(before[0], after[0], atol=1e-6)
  assert abs(before[1] - after[1]).max() > 1e-3


def test_an_instance_without_fragments_is_finite(encoders):
  (regions, _), (tokens, _) = images_and_texts()
  nothing = np.zeros((5, REGIONS), bool), np.zeros((5, WORDS), bool)
  for embedding in encode(encoders, (regions, nothing[0]), (tokens, nothing[1])):
    assert np.isfinite(embedding).all()


def test_bfloat16_moves_embeddings_little(encoders):
  method, variables = encoders
  images = ImageInputs(*map(jnp.asarray, images_and_texts()[0]))
  config = default_config()
  config.hrem.num_heads = 4
  config.model.update(embedding_size=32, region_size=REGION_SIZE, dtype='bfloat16', text='bigru')
  half, full = (
    jax.jit(functools.partial(each.apply, method='encode_images'))(variables, images).embedding
    for each in (build_method(config), method)
  )
  assert half.dtype == jnp.float32
  assert_allclose(jnp.sum(half * full, axis=1), 1.0, atol=1e-3)


def test_batch_norm_learns_from_real_regions_only(encoders):
  method, variables = encoders
  regions, mask = (jnp.asarray(x) for x in images_and_texts()[0])
  settings = dict(train=True, method='encode_images', mutable=['batch_stats'])
  encode = jax.jit(functools.partial(method.apply, **settings))
  _, changed = encode(variables, ImageInputs(regions, mask), rngs={'dropout': jax.random.key(0)})
  statistics = changed['batch_stats']['image_encoder']['projection']['mlp_norm']
  params = variables['params']['image_encoder']['projection']['mlp_in']
  hidden = regions[mask] @ np.asarray(params['kernel']) + np.asarray(params['bias'])  # [real regions, d/2]
  assert_allclose(statistics['mean'], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
  assert_allclose(statistics['variance'], 0.9 + 0.1 * hidden.var(0, ddof=1), rtol=1e-4)


def test_gru_is_the_equations_of_the_gru():
  rng = np.random.default_rng(2)
  x, mask = rng.normal(size=(3, 5, 4)).astype(np.float32), np.arange(5) < np.array([[5], [2], [3]])
  module = Gru(hidden_size=6)
  variables = jax.jit(module.init)(jax.random.key(3), x, mask)
  states = np.asarray(jax.jit(module.apply)(variables, x, mask))
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables['params'])
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
  for text in range(3):
    state = np.zeros(6)
    for word in range(int(mask[text].sum())):
      given = np.split(x[text, word] @ params['input']['kernel'] + params['input']['bias'], 3)
      own = np.split(state @ params['recurrent_kernel'] + params['recurrent_bias'], 3)
      reset, update = sigmoid(given[0] + own[0]), sigmoid(given[1] + own[1])
      state = (1 - update) * np.tanh(given[2] + reset * own[2]) + update * state
      assert_allclose(states[text, word], state, atol=1e-6)


def test_bigru_reads_backwards_from_the_last_real_word():
  tokens, mask = np.array([[3, 1, 4, 1, 5], [3, 1, 4, 0, 0]]), np.arange(5) < np.array([[5], [3]])
  module = BiGru(vocab_size=7, word_size=3, hidden_size=4)
  variables, states = jax.jit(module.init)(jax.random.key(0), tokens, mask), jax.jit(module.apply)
  padded = states(variables, tokens, mask)[1, :3]
  alone = states(variables, tokens[1:, :3], mask[1:, :3])[0]
  assert_allclose(padded, alone, atol=1e-6)
