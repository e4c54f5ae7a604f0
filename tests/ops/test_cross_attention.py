"""Cross-modal attention: the slow oracle, its finite differences, the public program, padding and degenerate inputs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle_cross_attention as oracle
import pytest
from oracle import assert_close

from hrem_jax.ops.cross_attention import (
  AGGREGATIONS,
  NORMALISATIONS,
  attended_cosine,
  cross_attention_scores,
  cross_attention_weights,
  fragment_products,
  gram_matrices,
)
from hrem_jax.ops.text_blocks import ACCELERATOR, Tiling

IMAGES, TEXTS, REGIONS, WORDS, SIZE = 3, 5, 7, 11, 13
# One width, so one small program for each setting; `test_tiling_...` has many.
FEW = Tiling(block_size=2, num_widths=1)
USUAL = dict(inverse_temperature=9.0, normalisation='clipped_l2norm', aggregation='lse', lse_factor=6.0, tiling=FEW)
EVERY_SETTING = [
  *(USUAL | dict(asks='words', normalisation=name) for name in NORMALISATIONS),
  *(USUAL | dict(asks='regions', aggregation=name) for name in AGGREGATIONS),
]
SETTINGS = pytest.mark.parametrize('settings', EVERY_SETTING, ids=lambda x: f'{x["normalisation"]}-{x["aggregation"]}')
ASKS = pytest.mark.parametrize('asks', ['words', 'regions'])
STATIC = ('asks', 'normalisation', 'aggregation', 'inverse_temperature', 'lse_factor', 'tiling')


def ragged_fragments(seed=0, dtype=np.float32):
  """Regions, their mask, words, their mask: full, in between, with gaps, and a single one of each side."""
  rng = np.random.default_rng(seed)
  regions = rng.normal(size=(IMAGES, REGIONS, SIZE)).astype(dtype)
  words = rng.normal(size=(TEXTS, WORDS, SIZE)).astype(dtype)
  region_mask, word_mask = np.zeros((IMAGES, REGIONS), bool), np.zeros((TEXTS, WORDS), bool)
  for row, real in enumerate(([0, 1, 2, 3, 4, 5, 6], [0, 2, 5], [3])):
    region_mask[row, real] = True
  for row, real in enumerate((range(WORDS), range(6), [1, 4, 10], [0], [7, 8])):
    word_mask[row, real] = True
  return regions, region_mask, words, word_mask


@functools.partial(jax.jit, static_argnames=STATIC)
def compiled(regions, region_mask, words, word_mask, **settings):
  """The scores, and the gradients of a weighted sum of them: one program for the tests of both."""
  weight = np.random.default_rng(4).normal(size=(len(regions), len(words)))

  def total(regions, words):
    found = cross_attention_scores(regions, region_mask, words, word_mask, **settings)
    return jnp.sum(found * weight.astype(found.dtype)), found

  gradients, found = jax.grad(total, argnums=(0, 1), has_aux=True)(regions, words)
  return found, gradients, weight


def scores(*inputs, **settings):
  return np.asarray(compiled(*map(jnp.asarray, inputs), **USUAL | settings)[0])


def gradients_of(*inputs, **settings):
  """By regions and by words, and the weights of the sum."""
  _, gradients, weight = compiled(*map(jnp.asarray, inputs), **USUAL | settings)
  return [np.asarray(gradient) for gradient in gradients], np.asarray(weight)


@ASKS
def test_scores_worked_by_hand(asks):
  # Regions r1 = (1, 0), r2 = (0, 1); words w1 = (1, 0), w2 = (0.6, 0.8); the third of each is padding.
  #
  #   cosines      w1   w2     words ask: each region over the words      regions ask: each word over the regions
  #           r1    1  0.6         0.8575  0.5145                             1    0.6
  #           r2    0  0.8         0       1                                  0    0.8
  #
  # Softmax with lambda = ln 3 of a difference of d: the weights are 3^d to 1.
  #   words ask:   w1 sees r1, r2 as 3^0.8575 to 1, w2 as 1 to 3^0.4855
  #   regions ask: r1 sees w1, w2 as 3^0.4 to 1, r2 as 1 to 3^0.8
  regions = np.array([[[1, 0], [0, 1], [9, 9]]], np.float64)
  words = np.array([[[1, 0], [0.6, 0.8], [9, 9]]], np.float64)
  mask = np.array([[True, True, False]])

  def cosine(x, y):
    return np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)

  high = 1 / np.sqrt(1.36)
  contexts = {
    'words': [(words[0, 0], [3**high, 1]), (words[0, 1], [1, 3 ** (1 - 0.6 * high)])],
    'regions': [(regions[0, 0], [3**0.4 * 1 + 0.6, 0.8]), (regions[0, 1], [1 + 3**0.8 * 0.6, 3**0.8 * 0.8])],
  }
  expected = np.mean([cosine(x, np.array(context)) for x, context in contexts[asks]])
  settings = dict(asks=asks, inverse_temperature=float(np.log(3)), aggregation='mean')
  found = scores(regions.astype(np.float32), mask, words.astype(np.float32), mask, **settings)
  assert_close(found, [[expected]], rtol=1e-6)


@pytest.mark.usefixtures('x64')
@SETTINGS
def test_scores_equal_the_oracle(settings):
  inputs = ragged_fragments(dtype=np.float64)
  inputs[0][0, 1] = 0  # a real fragment may be the zero vector
  inputs[2][1, 2] = 0
  assert_close(scores(*inputs, **settings), oracle.cross_attention_scores(*inputs, **settings), atol=1e-12)


@ASKS
def test_scores_of_float32_are_float32_and_equal_the_oracle(asks):
  inputs = ragged_fragments()
  found = scores(*inputs, asks=asks)
  assert found.dtype == np.float32
  assert_close(found, oracle.cross_attention_scores(*inputs, **USUAL, asks=asks), atol=3e-6)


@pytest.mark.usefixtures('x64')
@SETTINGS
def test_gradients_equal_finite_differences_in_any_direction(settings):
  regions, region_mask, words, word_mask = ragged_fragments(dtype=np.float64)
  gradients, weight = gradients_of(regions, region_mask, words, word_mask, **settings)
  rng = np.random.default_rng(5)
  for _ in range(2):
    steps = [1e-6 * rng.normal(size=x.shape) for x in (regions, words)]
    above, below = (
      np.sum(
        weight
        * oracle.cross_attention_scores(
          regions + sign * steps[0], region_mask, words + sign * steps[1], word_mask, **settings
        )
      )
      for sign in (1, -1)
    )
    found = sum(np.sum(gradient * step) for gradient, step in zip(gradients, steps, strict=True))
    assert found == pytest.approx((above - below) / 2, rel=1e-6)


@ASKS
@pytest.mark.parametrize('junk', [1e30, np.nan, np.inf], ids=str)
def test_padding_takes_part_in_nothing_and_gets_no_gradient(asks, junk):
  regions, region_mask, words, word_mask = ragged_fragments()
  usual = scores(regions, region_mask, words, word_mask, asks=asks)
  usual_gradients, _ = gradients_of(regions, region_mask, words, word_mask, asks=asks)
  regions[~region_mask], words[~word_mask] = junk, junk
  np.testing.assert_array_equal(scores(regions, region_mask, words, word_mask, asks=asks), usual)
  gradients, _ = gradients_of(regions, region_mask, words, word_mask, asks=asks)
  for found, expected, mask in zip(gradients, usual_gradients, (region_mask, word_mask), strict=True):
    np.testing.assert_array_equal(found, expected)
    assert not np.any(found[~mask])


@pytest.mark.usefixtures('x64')
@SETTINGS
def test_instances_without_fragments_score_zero_and_leave_all_gradients_finite(settings):
  regions, region_mask, words, word_mask = ragged_fragments(dtype=np.float64)
  region_mask[1], word_mask[2] = False, False
  regions[0, 0], words[0, 0] = 0, 0  # and real fragments that are the zero vector
  found = scores(regions, region_mask, words, word_mask, **settings)
  assert np.all(np.isfinite(found))
  assert not np.any(found[1] if settings['asks'] == 'regions' else found[:, 2])
  gradients, _ = gradients_of(regions, region_mask, words, word_mask, **settings)
  for gradient, mask in zip(gradients, (region_mask, word_mask), strict=True):
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[mask])


@ASKS
@pytest.mark.parametrize('tiling', [Tiling(2, 14), ACCELERATOR, None])
def test_tiling_changes_neither_scores_nor_gradients(asks, tiling):
  inputs = ragged_fragments()
  assert_close(scores(*inputs, asks=asks, tiling=tiling), scores(*inputs, asks=asks), atol=1e-6)
  found, _ = gradients_of(*inputs, asks=asks, tiling=tiling)
  expected, _ = gradients_of(*inputs, asks=asks)
  for one, other in zip(found, expected, strict=True):
    assert_close(one, other, atol=1e-6)


@ASKS
def test_permuted_instances_permute_the_scores_and_order_of_fragments_does_not_matter(asks):
  regions, region_mask, words, word_mask = ragged_fragments()
  images, texts = np.array([2, 0, 1]), np.array([4, 2, 0, 1, 3])
  region_places, word_places = np.random.default_rng(1).permutation(REGIONS), np.arange(WORDS)[::-1]
  found = scores(
    regions[images][:, region_places],
    region_mask[images][:, region_places],
    words[texts][:, word_places],
    word_mask[texts][:, word_places],
    asks=asks,
  )
  usual = scores(regions, region_mask, words, word_mask, asks=asks)
  assert_close(found, usual[images][:, texts], atol=1e-6)


@ASKS
def test_compiled_scores_equal_those_without_jit_and_appended_padding_changes_nothing(asks):
  regions, region_mask, words, word_mask = ragged_fragments()
  usual = scores(regions, region_mask, words, word_mask, asks=asks)
  arrays = map(jnp.asarray, (regions, region_mask, words, word_mask))
  without_jit = cross_attention_scores(*arrays, **USUAL, asks=asks)
  assert_close(without_jit, usual, atol=1e-6)
  regions, words = (np.pad(x, ((0, 0), (0, more), (0, 0)), constant_values=3) for x, more in ((regions, 2), (words, 6)))
  region_mask, word_mask = (np.pad(x, ((0, 0), (0, more))) for x, more in ((region_mask, 2), (word_mask, 6)))
  assert_close(scores(regions, region_mask, words, word_mask, asks=asks), usual, atol=1e-6)


def test_asking_is_symmetric_in_the_modalities():
  regions, region_mask, words, word_mask = ragged_fragments()
  found = scores(words, word_mask, regions, region_mask, asks='regions')
  assert_close(found.T, scores(regions, region_mask, words, word_mask, asks='words'), atol=1e-6)


def test_weights_add_up_to_one_over_real_fragments_and_attended_cosine_is_that_of_the_context():
  regions, region_mask, words, word_mask = ragged_fragments(dtype=np.float32)
  region_mask[2] = False
  regions, words = regions * region_mask[..., None], words * word_mask[..., None]
  asked, askers = jnp.asarray(regions), jnp.swapaxes(jnp.asarray(words), 0, 1)
  products = fragment_products(asked, askers)
  assert_close(products, np.einsum('ird,twd->irwt', regions, words), atol=1e-5)
  weights = cross_attention_weights(
    products, jnp.asarray(region_mask), jnp.asarray(word_mask.T), normalisation='clipped', inverse_temperature=1.5
  )
  weights = np.asarray(weights)
  assert_close(weights.sum(1), np.broadcast_to([[[1.0]], [[1.0]], [[0.0]]], (IMAGES, WORDS, TEXTS)), atol=1e-6)
  assert not np.any(
    np.moveaxis(weights, 1, -1)[:, :, :, :][~region_mask[:, None, None].repeat(WORDS, 1).repeat(TEXTS, 2)]
  )
  norm = np.linalg.norm(words, axis=-1).T
  found = attended_cosine(jnp.asarray(weights), products, gram_matrices(asked), jnp.asarray(norm))
  contexts = np.einsum('irwt,ird->iwtd', weights, regions)
  lengths = norm[None] * np.linalg.norm(contexts, axis=-1)
  assert_close(found, np.einsum('twd,iwtd->iwt', words, contexts) / np.maximum(lengths, 1e-8), atol=1e-5)
  assert not np.any(found[2])


def test_backward_pass_keeps_no_block_and_stores_nothing_of_the_size_of_all_pairs():
  """Twice as many texts may double what grows with the texts, not what grows with texts times images."""

  def temporary_bytes(num_texts):
    regions, words = (jax.ShapeDtypeStruct((n, k, 3), jnp.float32) for n, k in ((31, 37), (num_texts, 13)))
    masks = [jax.ShapeDtypeStruct(x.shape[:2], bool) for x in (regions, words)]

    def total(regions, words, region_mask, word_mask):
      settings = USUAL | dict(asks='words', tiling=Tiling(2, 2))
      return jnp.sum(cross_attention_scores(regions, region_mask, words, word_mask, **settings) ** 2)

    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(regions, words, *masks).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  small, large = temporary_bytes(16), temporary_bytes(32)
  all_pairs = 16 * 31 * 37 * 13 * 4  # of the added texts: one such array
  assert large - small < all_pairs / 10


# --- the public program -----------------------------------------------------------------------------------------------

compiled_scores = jax.jit(cross_attention_scores, static_argnames=STATIC)
PROGRAM_AGGREGATIONS = {'LogSumExp': 'lse', 'Mean': 'mean', 'Max': 'max', 'Sum': 'sum'}


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('part', 'dtype'), [('train', np.float64), ('eval', np.float32)])
def test_scores_equal_the_public_program(golden, part, dtype):
  arrays = np.load(golden / 'scan_small.npz')
  regions, words = (arrays[f'{part}/{name}'].astype(dtype) for name in ('regions', 'words'))
  word_mask = np.arange(words.shape[1]) < arrays[f'{part}/lengths'][:, None]
  variants = json.loads(str(arrays['setting_json']))['variants']
  assert len(variants) == 8
  for name, variant in variants.items():
    found = compiled_scores(
      *map(jnp.asarray, (regions, np.ones(regions.shape[:2], bool), words, word_mask)),
      asks={'t2i': 'words', 'i2t': 'regions'}[variant['cross_attn']],
      normalisation=variant.get('raw_feature_norm', 'clipped_l2norm'),
      inverse_temperature=variant['lambda_softmax'],
      aggregation=PROGRAM_AGGREGATIONS[variant['agg_func']],
      lse_factor=variant['lambda_lse'],
      tiling=FEW,
    )
    expected = arrays[f'{part}/score/{name}']
    tolerance = {np.float32: 1e-5, np.float64: 1e-12}[dtype]
    assert_close(found, expected, atol=tolerance * max(1, np.max(np.abs(expected))))
