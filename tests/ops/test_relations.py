"""The association graph: the slow oracle, its finite differences, padding, ties and degenerate inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import assert_close

from hrem_jax.ops.relations import (
  connection_matrix,
  fragment_relations,
  gaussian_affinity,
  keep_most_similar,
)
from hrem_jax.ops.text_blocks import ACCELERATOR, Tiling

IMAGES, TEXTS, REGIONS, WORDS, SIZE, TOP_K = 3, 5, 7, 11, 13, 4
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}
GRADIENT_TOLERANCE = 1e-8  # of the finite differences


def ragged_fragments(seed=0, dtype=np.float32):
  """Regions, their mask, words, their mask: full, in between, fewer than K, with gaps, and a single one."""
  rng = np.random.default_rng(seed)
  regions = rng.normal(size=(IMAGES, REGIONS, SIZE)).astype(dtype)
  words = rng.normal(size=(TEXTS, WORDS, SIZE)).astype(dtype)
  region_mask, word_mask = np.zeros((IMAGES, REGIONS), bool), np.zeros((TEXTS, WORDS), bool)
  for row, real in enumerate(([0, 1, 2, 3, 4, 5, 6], [0, 2, 5], [3])):
    region_mask[row, real] = True
  for row, real in enumerate((range(WORDS), range(6), [1, 4, 10], [0], [7, 8])):
    word_mask[row, real] = True
  regions[0, 1] = 0  # a real fragment may be the zero vector,
  regions[0, 3] = regions[0, 2]  # or stand there twice,
  words[3, 0] = -5 * regions[2, 3]  # or be the opposite of all that it meets
  return regions, region_mask, words, word_mask


# Compiled once per shape: without jit every call compiles its loop again.
compiled_relations = jax.jit(fragment_relations, static_argnames=('top_k', 'tiling'))
compiled_affinity = jax.jit(gaussian_affinity, static_argnames=('sigma', 'squared'))


def relate(regions, region_mask, words, word_mask, *, function=compiled_relations, **options):
  """As NumPy: `i2t.mean, i2t.strongest, t2i.mean, t2i.strongest`."""
  arguments = (jnp.asarray(x) for x in (regions, region_mask, words, word_mask))
  i2t, t2i = function(*arguments, **{'top_k': TOP_K, **options})
  return [np.asarray(x) for x in (*i2t, *t2i)]


@functools.cache
def usual_relations():
  return relate(*ragged_fragments())


# --- fragment relations -----------------------------------------------------------------------------------------------


def test_fragment_relations_worked_by_hand():
  # Regions r1 = (1, 0), r2 = (0, 1) of image 0, the opposites of image 1; words w1 = (1, 0), w2 = (0.6, 0.8).
  #
  #   image 0, cosines      w1   w2     each region over the words      each word over the regions
  #                   r1     1  0.6        0.8575  0.5145                    1    0.6
  #                   r2     0  0.8        0       1                         0    0.8
  #   t2i: best region of w1 0.8575, of w2 1: p = 0.92875, q = (1, 0.8575, 0)
  #   i2t: best word of r1 1, of r2 0.8:      p = 0.9,     q = (1, 0.8, 0)
  #
  #   image 1, leaky        w1     w2   each region over the words      each word over the regions
  #                   r1  -0.1  -0.06     -0.8575 -0.5145                   -1   -0.6
  #                   r2     0  -0.08      0      -1                         0   -0.8
  #   t2i: 0 and -0.5145: p = -0.25725, q = (0, -0.5145, 0);   i2t: -0.6 and 0: p = -0.3, q = (0, -0.6, 0)
  #
  # The third region and word are padding.
  regions = np.array([[[2, 0], [0, 3], [9, 9]], [[-2, 0], [0, -3], [9, 9]]], np.float32)
  words = np.array([[[1, 0], [6, 8], [9, 9]]] * 2, np.float32)
  mask = np.array([[True, True, False]] * 2)
  i2t_mean, i2t_strongest, t2i_mean, t2i_strongest = relate(regions, mask, words, mask, top_k=3)
  high, low = 1 / np.sqrt(1.36), 0.6 / np.sqrt(1.36)
  assert_close(t2i_mean, [[(high + 1) / 2, -low / 2]] * 2, rtol=1e-6)
  assert_close(t2i_strongest, [[[1, high, 0], [0, -low, 0]]] * 2, atol=1e-6)
  assert_close(i2t_mean, [[0.9] * 2, [-0.3] * 2], rtol=1e-6)
  assert_close(i2t_strongest, [[[1, 0.8, 0]] * 2, [[0, -0.6, 0]] * 2], atol=1e-6)


@pytest.mark.parametrize('top_k', [2, 17])
def test_fragment_relations_equal_the_oracle_with_fewer_fragments_than_top_k_too(dtype, top_k):
  inputs = ragged_fragments(dtype=dtype)
  (i2t_mean, i2t_strongest), (t2i_mean, t2i_strongest) = oracle.fragment_relations(*inputs, top_k=top_k)
  assert i2t_strongest.shape == (IMAGES, TEXTS, top_k)
  expected = (i2t_mean, i2t_strongest, t2i_mean, t2i_strongest)
  assert min(i2t_mean.min(), t2i_mean.min()) < 0  # no zero of the padding hides a negative match
  for one, other in zip(relate(*inputs, top_k=top_k), expected, strict=True):
    assert one.dtype == dtype
    assert_close(one, other, atol=TOLERANCE[dtype])


@pytest.mark.parametrize('junk', [1e30, np.nan, np.inf], ids=str)
def test_padding_takes_part_in_nothing(junk):
  regions, region_mask, words, word_mask = ragged_fragments()
  regions[~region_mask], words[~word_mask] = junk, junk
  for one, other in zip(relate(regions, region_mask, words, word_mask), usual_relations(), strict=True):
    np.testing.assert_array_equal(one, other)


def test_appended_padding_changes_no_relation():
  regions, region_mask, words, word_mask = ragged_fragments()
  regions, words = (np.pad(x, ((0, 0), (0, more), (0, 0)), constant_values=3) for x, more in ((regions, 2), (words, 6)))
  region_mask, word_mask = (np.pad(x, ((0, 0), (0, more))) for x, more in ((region_mask, 2), (word_mask, 6)))
  for one, other in zip(relate(regions, region_mask, words, word_mask), usual_relations(), strict=True):
    assert_close(one, other, atol=1e-6)


def test_permuted_instances_permute_the_relations_and_order_of_fragments_does_not_matter():
  regions, region_mask, words, word_mask = ragged_fragments()
  images, texts = np.array([2, 0, 1]), np.array([4, 2, 0, 1, 3])
  region_places, word_places = np.random.default_rng(1).permutation(REGIONS), np.arange(WORDS)[::-1]
  found = relate(
    regions[images][:, region_places],
    region_mask[images][:, region_places],
    words[texts][:, word_places],
    word_mask[texts][:, word_places],
  )
  i2t_mean, i2t_strongest, t2i_mean, t2i_strongest = usual_relations()
  assert_close(found[0], i2t_mean[images][:, texts], atol=1e-6)
  assert_close(found[1], i2t_strongest[images][:, texts], atol=1e-6)
  assert_close(found[2], t2i_mean[texts][:, images], atol=1e-6)
  assert_close(found[3], t2i_strongest[texts][:, images], atol=1e-6)


@pytest.mark.parametrize('tiling', [Tiling(1, 14), Tiling(2, 3), Tiling(3, 1), ACCELERATOR, Tiling(8, 14)])
def test_tiling_changes_nothing(tiling):
  for one, other in zip(relate(*ragged_fragments(), tiling=tiling), usual_relations(), strict=True):
    assert_close(one, other, atol=1e-6)


def test_compiled_relations_equal_those_without_jit():
  found = relate(*ragged_fragments(), function=fragment_relations)
  for one, other in zip(found, usual_relations(), strict=True):
    assert_close(one, other, atol=1e-6)


def test_lengths_of_fragments_do_not_matter():
  regions, region_mask, words, word_mask = ragged_fragments()
  for one, other in zip(relate(regions * 7, region_mask, words / 5, word_mask), usual_relations(), strict=True):
    assert_close(one, other, atol=1e-6)


def test_fragments_get_no_gradient():
  regions, region_mask, words, word_mask = (jnp.asarray(x) for x in ragged_fragments())

  def everything(regions, words):
    i2t, t2i = compiled_relations(regions, region_mask, words, word_mask, top_k=TOP_K)
    return sum(jnp.sum(x**2) for x in (*i2t, *t2i))

  for gradient, x in zip(jax.grad(everything, argnums=(0, 1))(regions, words), (regions, words), strict=True):
    assert gradient.shape == x.shape
    assert not np.any(gradient)


def test_instance_without_real_fragments_has_no_relation():
  regions, region_mask, words, word_mask = ragged_fragments()
  region_mask[1], word_mask[2] = False, False
  i2t_mean, i2t_strongest, t2i_mean, t2i_strongest = relate(regions, region_mask, words, word_mask)
  for i2t, t2i, usual in (
    (i2t_mean, t2i_mean, usual_relations()[0]),
    (i2t_strongest, t2i_strongest, usual_relations()[1]),
  ):
    assert np.all(np.isfinite(i2t))
    assert np.all(np.isfinite(t2i))
    assert not np.any(i2t[1])
    assert not np.any(i2t[:, 2])
    assert not np.any(t2i[2])
    assert not np.any(t2i[:, 1])
    assert_close(i2t[[0, 2]][:, [0, 1, 3, 4]], usual[[0, 2]][:, [0, 1, 3, 4]], atol=1e-6)


# --- connection matrix ------------------------------------------------------------------------------------------------


def test_connection_matrix_of_three_images_and_three_texts_worked_by_hand():
  # Every row of a block keeps floor(0.5 * 3) = 1 column; with keep = 0.7 floor(2.1) = 2.
  #
  #   images (1, 0), (0, 1), (0.6, 0.8)     i2i = cosine   1    0   0.6    one: itself    two:  x . x
  #   (lengths do not count)                               0    1   0.8                         . x x
  #                                                        0.6  0.8   1                         . x x
  #   i2t = p     0.9 0.5 0.5    one:  x . .  two:  x x x  <- both at the threshold 0.5
  #               0.2 0.7 0.7          . x x        . x x  <- both at the threshold 0.7, for one and for two
  #               0.1 0.3 0.2          . x .        . x x
  #   t2i = p     0.4 0.4 0.4    one:  x x x  two:  x x x
  #               0.0 0.1 -.1          . x .        x x .
  #               -.3 -.2 -.1          . . x        . x x
  #   texts (1, 0), (-1, 0), (0, -1)  t2t   1  -1   0    one: itself    two:  x . x
  #                                        -1   1   0                         . x x
  #                                         0   0   1                         x x x  <- both at the threshold 0
  images = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
  texts = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -5.0]])
  i2t = jnp.array([[0.9, 0.5, 0.5], [0.2, 0.7, 0.7], [0.1, 0.3, 0.2]])
  t2i = jnp.array([[0.4, 0.4, 0.4], [0.0, 0.1, -0.1], [-0.3, -0.2, -0.1]])
  one = ['x..  x..', '.x.  .xx', '..x  .x.', 'xxx  x..', '.x.  .x.', '..x  ..x']
  two = ['x.x  xxx', '.xx  .xx', '.xx  .xx', 'xxx  x.x', 'xx.  .xx', '.xx  xxx']
  for keep, rows in ((0.5, one), (0.7, two)):
    found = connection_matrix(images, texts, i2t, t2i, keep=keep)
    assert found.dtype == bool
    assert_close(found, [[mark == 'x' for mark in row.replace(' ', '')] for row in rows])


@pytest.mark.parametrize('keep', [0.5, 0.2, 1.0])
def test_connection_matrix_equals_the_oracle(dtype, keep):
  rng = np.random.default_rng(2)
  images, texts = rng.normal(size=(IMAGES, SIZE)).astype(dtype), rng.normal(size=(TEXTS, SIZE)).astype(dtype)
  i2t, t2i = rng.normal(size=(IMAGES, TEXTS)).astype(dtype), rng.normal(size=(TEXTS, IMAGES)).astype(dtype)
  arguments = [jnp.asarray(x) for x in (images, texts, i2t, t2i)]
  expected = oracle.connection_matrix(images, texts, i2t, t2i, keep=keep)
  assert np.all(expected) == (keep == 1.0)
  assert_close(jax.jit(functools.partial(connection_matrix, keep=keep))(*arguments), expected)


@pytest.mark.parametrize('columns', [1, 2, 3, 7, 11])
@pytest.mark.parametrize('keep', [0.01, 0.5, 0.9])
def test_kept_columns_equal_the_oracle_under_heavy_ties(columns, keep):
  similarity = np.random.default_rng(columns).integers(0, 3, size=(5, columns)).astype(np.float32)
  expected = oracle.keep_most_similar(similarity, keep)
  assert np.all(np.any(expected, axis=1))
  assert_close(keep_most_similar(jnp.asarray(similarity), keep=keep), expected)


def test_equal_columns_are_all_kept():
  assert_close(keep_most_similar(jnp.zeros((3, 7))), np.ones((3, 7), bool))


# --- affinity ---------------------------------------------------------------------------------------------------------

AFFINITY_OPTIONS = [{}, {'sigma': 2.5}, {'squared': True}, {'sigma': 2.5, 'squared': True}]


def some_points(seed=3, dtype=np.float64):
  """Two sets with rows in common, a row that stands twice, and the zero vector in both."""
  rng = np.random.default_rng(seed)
  x, y = (0.6 * rng.normal(size=(count, SIZE)).astype(dtype) for count in (IMAGES + 2, TEXTS + 2))
  x[3], y[2], y[5], x[4], y[6] = x[0], x[0], y[1], 0, 0
  return x, y


@pytest.mark.parametrize('options', AFFINITY_OPTIONS, ids=str)
def test_affinity_equals_the_oracle(dtype, options):
  x, y = some_points(dtype=dtype)
  found = compiled_affinity(jnp.asarray(x), jnp.asarray(y), **options)
  assert found.dtype == dtype
  expected = oracle.gaussian_affinity(x, y, **options)
  assert_close(found, expected, atol=TOLERANCE[dtype])
  assert found[0, 2] == found[3, 2] == found[4, 6] == 1.0


def test_affinity_is_the_same_without_jit():
  x, y = (jnp.asarray(points) for points in some_points(dtype=np.float32))
  assert_close(gaussian_affinity(x, y), compiled_affinity(x, y), atol=1e-6)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('options', AFFINITY_OPTIONS, ids=str)
def test_gradients_of_affinity_equal_finite_differences_at_equal_rows_too(options):
  x, y = some_points()
  weight = np.random.default_rng(4).normal(size=(len(x), len(y)))

  def ours(x, y):
    return jnp.sum(compiled_affinity(x, y, **options) * weight)

  def reference(x, y):
    return np.sum(oracle.gaussian_affinity(x, y, **options) * weight)

  found = jax.grad(ours, argnums=(0, 1))(jnp.asarray(x), jnp.asarray(y))
  assert_close(found[0], oracle.numerical_gradient(lambda x: reference(x, y), x), atol=GRADIENT_TOLERANCE)
  assert_close(found[1], oracle.numerical_gradient(lambda y: reference(x, y), y), atol=GRADIENT_TOLERANCE)


@pytest.mark.usefixtures('x64')
def test_gradient_of_intra_affinity_equals_finite_differences():
  x, _ = some_points()
  weight = np.random.default_rng(5).normal(size=(len(x), len(x)))
  found = jax.grad(lambda x: jnp.sum(compiled_affinity(x, x) * weight))(jnp.asarray(x))
  expected = oracle.numerical_gradient(lambda x: np.sum(oracle.gaussian_affinity(x, x) * weight), x)
  assert_close(found, expected, atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize('squared', [False, True])
def test_intra_affinity_is_symmetric_with_ones_and_no_gradient_on_its_diagonal(squared):
  x = jnp.asarray(some_points(dtype=np.float32)[0])
  found = compiled_affinity(x, x, squared=squared)
  assert_close(found, found.T, atol=1e-6)
  assert_close(jnp.diagonal(found), np.ones(len(x)))
  gradient = jax.grad(lambda x: jnp.trace(compiled_affinity(x, x, squared=squared)))(x)
  assert gradient.shape == x.shape
  assert not np.any(gradient)


@pytest.mark.parametrize('squared', [False, True])
@pytest.mark.parametrize('spread', [0.0, 1e-9, 1e-6, 1e-4, 9e-4, 1.2e-3, 1e-2])
def test_affinity_of_nearly_equal_unit_rows_is_accurate_and_its_gradient_bounded(spread, squared):
  rng = np.random.default_rng(6)
  x = oracle.l2_normalize(rng.normal(size=(IMAGES, 67)))
  y = x + spread * oracle.l2_normalize(rng.normal(size=(IMAGES, 67)))
  expected = np.diagonal(oracle.gaussian_affinity(x, y, squared=squared))

  def diagonal_sum(x, y):
    diagonal = jnp.diagonal(compiled_affinity(x, y, squared=squared))
    return jnp.sum(diagonal), diagonal

  arguments = (jnp.asarray(array, jnp.float32) for array in (x, y))
  gradients, found = jax.grad(diagonal_sum, argnums=(0, 1), has_aux=True)(*arguments)
  assert_close(found, expected, atol=1e-3 if spread < 1e-2 else 1e-4)
  for gradient in gradients:
    assert gradient.shape == x.shape
    assert np.all(np.linalg.norm(gradient, axis=1) < 1.5)  # of the exact one: at most 1
