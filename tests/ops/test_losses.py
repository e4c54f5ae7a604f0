"""Matching losses and the regulariser: the slow oracle, its finite differences, the sampler's law, empty anchors."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import assert_close

from hrem_jax.ops.losses import (
  cosine_similarity,
  distance_weighted_loss,
  draw_negatives,
  hinge_loss,
  log_negative_weights,
  relation_loss,
  triplet_loss,
)

IMAGES, TEXTS, PAIRS, SIZE = 5, 11, 7, 3
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}
compiled_hinge = jax.jit(hinge_loss, static_argnames=('margin', 'hardest_negative'))
compiled_distance_weighted = jax.jit(distance_weighted_loss, static_argnames=('margin', 'cutoff', 'dimension'))
compiled_log_weights = jax.jit(log_negative_weights, static_argnames=('cutoff', 'dimension'))
compiled_triplet = jax.jit(triplet_loss, static_argnames='margin')
compiled_relation = jax.jit(relation_loss)
draw_many = jax.jit(draw_negatives, static_argnums=1)
GRADIENT_TOLERANCE = 1e-8  # of the finite differences


def some_cosines(rows=IMAGES, columns=TEXTS, seed=0, dtype=np.float64):
  """Low-dimensional: from near -1 to near 1, so that cutoff and clamp are met."""
  rng = np.random.default_rng(seed)
  return oracle.cosine(rng.normal(size=(rows, SIZE)), rng.normal(size=(columns, SIZE))).astype(dtype)


def some_positives(rows=IMAGES, columns=TEXTS, seed=1):
  """Every image owns texts; image 0 several."""
  owner = np.random.default_rng(seed).integers(0, rows, size=columns)
  owner[:rows], owner[-2:] = np.arange(rows), 0
  return np.arange(rows)[:, None] == owner


def paired_positives():
  """Images 0, 2 and 6 of the batch are the same."""
  return oracle.same_image([5, 1, 5, 2, 3, 4, 5])


def test_cosine_similarity_is_images_by_texts(dtype):
  rng = np.random.default_rng(2)
  images, texts = rng.normal(size=(IMAGES, SIZE)).astype(dtype), rng.normal(size=(TEXTS, SIZE)).astype(dtype)
  expected = [[oracle.dot(image, text) for text in texts] for image in images]
  assert_close(cosine_similarity(jnp.asarray(images), jnp.asarray(texts)), expected, atol=TOLERANCE[dtype])


# --- hinge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('margin', [0.2, 0.5])
@pytest.mark.parametrize('hardest_negative', [True, False], ids=['hardest', 'all'])
def test_hinge_loss_equals_the_oracle(dtype, hardest_negative, margin):
  similarity, is_positive = some_cosines(PAIRS, PAIRS, dtype=dtype), paired_positives()
  options = {'margin': margin, 'hardest_negative': hardest_negative}
  found = compiled_hinge(jnp.asarray(similarity), jnp.asarray(is_positive), **options)
  loss, without = oracle.hinge_loss(similarity, is_positive, **options)
  assert loss > 1
  assert found.loss.dtype == dtype
  assert_close(found.loss, loss, rtol=TOLERANCE[dtype])
  assert_close(found.anchors_without_negatives, without)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('hardest_negative', [True, False], ids=['hardest', 'all'])
def test_gradient_of_hinge_loss_equals_finite_differences(hardest_negative):
  similarity, is_positive = some_cosines(PAIRS, PAIRS), paired_positives()
  ours = jax.jit(lambda x: hinge_loss(x, jnp.asarray(is_positive), hardest_negative=hardest_negative).loss)
  expected = oracle.numerical_gradient(
    lambda x: oracle.hinge_loss(x, is_positive, hardest_negative=hardest_negative)[0], similarity
  )
  assert_close(jax.grad(ours)(jnp.asarray(similarity)), expected, atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize('hardest_negative', [True, False], ids=['hardest', 'all'])
def test_same_image_pairs_are_never_negatives_of_the_hinge(hardest_negative):
  similarity, is_positive = some_cosines(PAIRS, PAIRS, dtype=np.float32), paired_positives()
  of_others = is_positive & ~np.eye(PAIRS, dtype=bool)
  value = functools.partial(compiled_hinge, is_positive=jnp.asarray(is_positive), hardest_negative=hardest_negative)
  expected = value(jnp.asarray(similarity)).loss
  similarity[of_others] = 100
  assert value(jnp.asarray(similarity)).loss == expected
  gradient = jax.grad(lambda x: value(x).loss)(jnp.asarray(similarity))
  assert gradient.shape == (PAIRS, PAIRS)
  assert not np.any(np.asarray(gradient)[of_others])
  assert np.any(gradient)


def test_permuted_pairs_permute_the_gradient_of_the_hinge():
  similarity, is_positive = some_cosines(PAIRS, PAIRS, dtype=np.float32), paired_positives()
  order = np.array([4, 2, 6, 0, 5, 1, 3])

  def loss_and_gradient(similarity, is_positive):
    return jax.value_and_grad(lambda x: compiled_hinge(x, jnp.asarray(is_positive)).loss)(jnp.asarray(similarity))

  loss, gradient = loss_and_gradient(similarity, is_positive)
  shuffled_loss, shuffled_gradient = loss_and_gradient(similarity[order][:, order], is_positive[order][:, order])
  assert_close(shuffled_loss, loss, rtol=1e-6)
  assert_close(shuffled_gradient, gradient[order][:, order], atol=1e-6)


@pytest.mark.parametrize('hardest_negative', [True, False], ids=['hardest', 'all'])
def test_hinge_anchors_without_negatives_give_nothing_and_are_counted(hardest_negative):
  similarity = jnp.asarray(some_cosines(PAIRS, PAIRS, dtype=np.float32))
  is_positive = np.eye(PAIRS, dtype=bool)
  is_positive[2] = True  # image 2 goes with every text: no negative for it, and one fewer for every text

  def loss(similarity, is_positive):
    found = hinge_loss(similarity, is_positive, hardest_negative=hardest_negative)
    return found.loss, found.anchors_without_negatives

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, without), gradient = run(similarity, jnp.asarray(is_positive))
  expected, expected_without = oracle.hinge_loss(np.asarray(similarity), is_positive, hardest_negative=hardest_negative)
  assert without == expected_without == 1
  assert_close(value, expected, rtol=1e-6)
  assert np.all(np.isfinite(gradient))
  (value, without), gradient = run(similarity, jnp.ones((PAIRS, PAIRS), bool))
  assert value == 0
  assert without == 2 * PAIRS
  assert gradient.shape == (PAIRS, PAIRS)
  assert not np.any(gradient)


# --- weights of the negatives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(('cutoff', 'dimension'), [(1.7, 512), (1.9, 512), (1.4, 67)])
def test_log_weights_equal_the_oracle(dtype, cutoff, dimension):
  similarity, is_positive = some_cosines(dtype=dtype), some_positives()
  is_eligible = np.isfinite(oracle.log_negative_weights(similarity, is_positive, cutoff, dimension))
  assert 0 < np.sum(is_eligible) < np.sum(~is_positive)
  found = compiled_log_weights(jnp.asarray(similarity), jnp.asarray(is_positive), cutoff=cutoff, dimension=dimension)
  expected = oracle.log_negative_weights(similarity, is_positive, cutoff, dimension)
  assert found.dtype == dtype
  assert_close(np.isfinite(found), is_eligible)
  assert_close(
    np.where(is_eligible, found, 0), np.where(is_eligible, expected, 0), rtol=4 * TOLERANCE[dtype], atol=1e-4
  )


@pytest.mark.usefixtures('x64')
def test_log_weights_worked_by_hand():
  # s = 0.5: D = 1, weight log 1 - 509/2 log(3/4) = 73.2157;  s = 0: D^2 = 2, -510/2 log 2 - 509/2 log(1/2) = -log(2)/2
  # s = -0.28: D = 1.6: -510 log 1.6 - 509/2 log 0.36;         s = 0.99 and 1: D is raised to 0.5
  # s = -1: D = 2 and s = -0.62: D = 1.8 are beyond the cutoff 1.7; the last column is the anchor's own
  similarity = jnp.array([[0.5, 0.0, -0.28, 0.99, 1.0, -1.0, -0.62, 0.5]] * 2)
  is_positive = jnp.arange(8)[None] == jnp.array([[7], [7]])
  raised = 510 * math.log(2) - 254.5 * math.log(1 - 1 / 16)
  far = -510 * math.log(1.6) - 254.5 * math.log(0.36)
  expected = [254.5 * math.log(4 / 3), -math.log(2) / 2, far, raised, raised, -math.inf, -math.inf, -math.inf]
  assert_close(compiled_log_weights(similarity, is_positive, cutoff=1.7), [expected] * 2, rtol=1e-12)


def test_log_weights_are_never_nan_and_carry_no_gradient():
  # A little beyond +-1 is what rounding leaves of identical and opposite embeddings.
  edge = [-1.0000002, -1.0, -0.9999999, 0.0, 0.875, 0.9999999, 1.0, 1.0000002]
  similarity = jnp.array([edge, edge[::-1]], jnp.float32)

  def total(similarity):
    weights = compiled_log_weights(similarity, jnp.zeros((2, 8), bool), cutoff=2.5)
    return jnp.sum(weights), weights

  gradient, weights = jax.grad(total, has_aux=True)(similarity)
  assert weights.shape == gradient.shape == (2, 8)
  assert np.all(np.isfinite(weights))
  assert not np.any(gradient)


# --- sampler ----------------------------------------------------------------------------------------------------------

DRAWS = 4001


def draw_counts(log_weights, seed):
  negatives = draw_many(jnp.asarray(log_weights), DRAWS, jax.random.key(seed))
  assert negatives.shape == (len(log_weights), DRAWS)
  assert np.all((negatives >= 0) & (negatives < log_weights.shape[1]))
  return np.array([np.bincount(row, minlength=log_weights.shape[1]) for row in np.asarray(negatives)])


def eligible_weights():
  """Rows: even; one of many; the two ends; a range of 60 in the logarithm; huge and tiny offsets."""
  none = -np.inf
  return np.array(
    [
      [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
      [none, none, none, 3.0, none, none, none],
      [1.0, none, none, none, none, none, 1.5],
      [none, -60.0, 0.0, none, -1.0, -2.0, none],
      [500.0, 501.0, none, 499.0, 498.5, none, 500.5],
      [-800.0, none, -799.5, -801.0, none, -800.5, none],
    ],
    np.float32,
  )


def test_ineligible_columns_are_never_drawn_over_many_keys():
  log_weights = eligible_weights()
  counts = sum(draw_counts(log_weights, seed) for seed in range(40))
  assert not np.any(counts[np.isneginf(log_weights)])
  assert np.all(np.sum(counts, axis=1) == 40 * DRAWS)


def test_frequencies_follow_the_softmax_of_the_log_weights():
  log_weights = eligible_weights()
  counts = sum(draw_counts(log_weights, seed) for seed in range(5))
  total = 5 * DRAWS
  chance = oracle.probabilities(log_weights.astype(np.float64))
  bound = 5 * np.sqrt(total * chance * (1 - chance)) + 1e-3
  assert counts.shape == chance.shape
  assert np.all(np.abs(counts - total * chance) <= bound)


def test_draws_of_one_row_and_rows_among_themselves_are_independent():
  log_weights = np.full((6, 7), -np.inf, np.float32)
  log_weights[:, [2, 3]] = 0
  negatives = np.asarray(draw_many(jnp.asarray(log_weights), DRAWS, jax.random.key(7)))
  assert negatives.shape == (6, DRAWS)
  signs = 2.0 * negatives - 5
  assert np.all(np.abs(signs) == 1)
  bound = 5 / np.sqrt(DRAWS)
  for one, other in itertools.combinations(range(6), 2):
    assert abs(np.mean(signs[one] * signs[other])) < bound
  for row in signs:
    assert abs(np.mean(row[1:] * row[:-1])) < bound
  again = draw_many(jnp.asarray(log_weights), DRAWS, jax.random.key(7))
  np.testing.assert_array_equal(again, negatives)
  assert np.any(np.asarray(draw_many(jnp.asarray(log_weights), DRAWS, jax.random.key(8))) != negatives)


def test_without_key_the_first_of_the_heaviest_is_taken():
  log_weights = np.array([[0.0, 2.0, 2.0, 1.0], [-np.inf, -5.0, -5.0, -np.inf], [3.0, 1.0, 3.0, 3.0]], np.float32)
  negatives = draw_negatives(jnp.asarray(log_weights), 5, None)
  assert_close(negatives, [[1] * 5, [1] * 5, [0] * 5])
  assert_close(oracle.heaviest_columns(log_weights), [1, 1, 0])


@pytest.mark.parametrize('key', [None, 3])
def test_row_without_eligible_columns_gets_a_column_in_range(key):
  log_weights = jnp.asarray(eligible_weights()).at[2].set(-jnp.inf)
  negatives = draw_many(log_weights, DRAWS, None if key is None else jax.random.key(key))
  assert negatives.shape == (6, DRAWS)
  assert np.all((negatives >= 0) & (negatives < 7))
  assert np.all(negatives[1] == 3)


# --- triplet ----------------------------------------------------------------------------------------------------------


def test_triplet_loss_of_three_anchors_worked_by_hand():
  # margin 0.2     similarity       positives   drawn        violations max(0, 0.2 + s_negative - s_positive)
  #   anchor 0   0.9  0.8  0.3       x  x  .     2  2  -    0.2 + 0.3 - 0.9 < 0 -> 0;   0.2 + 0.3 - 0.8 < 0 -> 0
  #   anchor 1   0.5  0.1  0.6       .  x  x     -  0  0    0.2 + 0.5 - 0.1 = 0.6;      0.2 + 0.5 - 0.6 = 0.1
  #   anchor 2   0.7  0.4  0.2       .  .  x     -  -  1    0.2 + 0.4 - 0.2 = 0.4
  # Sum 1.1; where anchor 2 has no negative 0.7. The gradient of a violation is +1 at its negative, -1 at its positive.
  similarity = jnp.array([[0.9, 0.8, 0.3], [0.5, 0.1, 0.6], [0.7, 0.4, 0.2]])
  is_positive = jnp.array([[True, True, False], [False, True, True], [False, False, True]])
  negatives = jnp.array([[2, 2, 0], [0, 0, 0], [1, 1, 1]])
  loss = jax.jit(jax.value_and_grad(triplet_loss))
  value, gradient = loss(similarity, is_positive, negatives, jnp.array([True, True, True]))
  assert_close(value, 1.1, rtol=1e-6)
  assert_close(gradient, [[0, 0, 0], [2, -1, -1], [0, 1, -1]])
  value, gradient = loss(similarity, is_positive, negatives, jnp.array([True, True, False]))
  assert_close(value, 0.7, rtol=1e-6)
  assert_close(gradient, [[0, 0, 0], [2, -1, -1], [0, 0, 0]])


@pytest.mark.parametrize('margin', [0.2, 0.7])
def test_triplet_loss_equals_the_oracle(dtype, margin):
  similarity, is_positive = some_cosines(dtype=dtype), some_positives()
  rng = np.random.default_rng(3)
  negatives = rng.integers(0, TEXTS, size=(IMAGES, TEXTS))
  has_negative = np.array([True, True, False, True, True])
  arguments = (jnp.asarray(x) for x in (similarity, is_positive, negatives, has_negative))
  expected = oracle.triplet_loss(similarity, is_positive, negatives, has_negative, margin)
  assert expected > 1
  assert_close(compiled_triplet(*arguments, margin=margin), expected, rtol=TOLERANCE[dtype])


@pytest.mark.usefixtures('x64')
def test_gradient_of_triplet_loss_equals_finite_differences():
  similarity, is_positive = some_cosines(), some_positives()
  negatives = np.random.default_rng(4).integers(0, TEXTS, size=(IMAGES, TEXTS))
  has_negative = np.array([True, False, True, True, True])
  found = jax.jit(jax.grad(triplet_loss))(*(jnp.asarray(x) for x in (similarity, is_positive, negatives, has_negative)))
  expected = oracle.numerical_gradient(
    lambda x: oracle.triplet_loss(x, is_positive, negatives, has_negative), similarity
  )
  assert np.any(expected)
  assert_close(found, expected, atol=GRADIENT_TOLERANCE)


# --- distance-weighted ------------------------------------------------------------------------------------------------


def oracle_weights(similarity, is_positive, cutoff):
  return (
    oracle.log_negative_weights(similarity, is_positive, cutoff),
    oracle.log_negative_weights(similarity.T, is_positive.T, cutoff),
  )


@pytest.mark.parametrize(('cutoff', 'margin'), [(1.7, 0.2), (1.4, 0.6)])
def test_distance_weighted_loss_of_the_heaviest_negatives_equals_the_oracle(dtype, cutoff, margin):
  similarity, is_positive = some_cosines(dtype=dtype), some_positives()
  found = compiled_distance_weighted(
    jnp.asarray(similarity), jnp.asarray(is_positive), None, cutoff=cutoff, margin=margin
  )
  weights = oracle_weights(similarity, is_positive, cutoff)
  loss, without = oracle.distance_weighted_loss(similarity, is_positive, weights, margin)
  assert loss > 1
  assert found.loss.dtype == dtype
  assert_close(found.loss, loss, rtol=TOLERANCE[dtype])
  assert_close(found.anchors_without_negatives, without)


@pytest.mark.usefixtures('x64')
def test_gradient_of_distance_weighted_loss_equals_finite_differences_with_constant_weights():
  similarity, is_positive = some_cosines(), some_positives()
  weights = oracle_weights(similarity, is_positive, 1.7)
  found = jax.grad(lambda x: distance_weighted_loss(x, jnp.asarray(is_positive), None, cutoff=1.7).loss)
  expected = oracle.numerical_gradient(lambda x: oracle.distance_weighted_loss(x, is_positive, weights)[0], similarity)
  assert np.any(expected)
  assert_close(jax.jit(found)(jnp.asarray(similarity)), expected, atol=GRADIENT_TOLERANCE)


SPREAD = {'cutoff': 1.9, 'dimension': 5}  # spreads the weights over all negatives; with 512 one takes nearly all
NUM_LOSSES = 2003


@jax.jit
def many_losses(similarity, is_positive):
  keys = jax.random.split(jax.random.key(0), NUM_LOSSES)
  return jax.lax.map(lambda key: distance_weighted_loss(similarity, is_positive, key, **SPREAD), keys)


def test_drawn_losses_have_the_expected_mean_and_the_variance_of_independent_directions():
  # Symmetric: with one key for both directions they would draw alike, and the variance be twice as large.
  points = np.random.default_rng(8).normal(size=(PAIRS, SIZE))
  similarity, is_positive = oracle.cosine(points, points).astype(np.float32), paired_positives()
  log_weights = oracle.log_negative_weights(similarity, is_positive, **SPREAD)
  mean, variance = (2 * value for value in oracle.expected_triplet_loss(similarity, is_positive, log_weights))
  losses = many_losses(jnp.asarray(similarity), jnp.asarray(is_positive)).loss
  assert losses.shape == (NUM_LOSSES,)
  assert abs(np.mean(losses) - mean) < 5 * math.sqrt(variance / NUM_LOSSES)
  assert 0.8 < np.var(losses) / variance < 1.25


@pytest.mark.parametrize(('others', 'violates'), [(-0.2, False), (0.4, True)])
def test_same_image_pairs_are_never_negatives_of_the_distance_weighted_loss(others, violates):
  # Pairs of one image lie between 0.3 and 0.9 and would violate the margin of 0.2 against each other; others at -0.2
  # do not, at 0.4 they do.
  is_positive = paired_positives()
  own = np.linspace(0.3, 0.9, PAIRS**2, dtype=np.float32).reshape(PAIRS, PAIRS)
  similarity = np.where(is_positive, own, np.float32(others))
  found = many_losses(jnp.asarray(similarity), jnp.asarray(is_positive))
  assert_close(np.asarray(found.loss) > 0, [violates] * NUM_LOSSES)
  assert_close(found.anchors_without_negatives, [0] * NUM_LOSSES)


@pytest.mark.parametrize('rng', [None, 5], ids=['no_key', 'key'])
def test_anchors_without_eligible_negatives_give_nothing_and_are_counted(rng):
  key = None if rng is None else jax.random.key(rng)
  similarity, is_positive = some_cosines(dtype=np.float32), some_positives()
  similarity[1] = np.where(is_positive[1], similarity[1], -0.99)  # beyond the cutoff
  is_positive[3] = True  # every text shows image 3
  is_positive[:, 7], similarity[:, 7] = False, -0.99  # neither a positive nor a negative: no anchor

  def value_and_count(similarity, is_positive):
    found = distance_weighted_loss(similarity, is_positive, key)
    return found.loss, found.anchors_without_negatives

  weights = oracle_weights(similarity, is_positive, 1.7)
  expected, expected_without = oracle.distance_weighted_loss(similarity, is_positive, weights)
  run = jax.jit(jax.value_and_grad(value_and_count, has_aux=True))
  (value, without), gradient = run(jnp.asarray(similarity), jnp.asarray(is_positive))
  assert expected_without == 2
  assert without == expected_without
  if key is None:
    assert_close(value, expected, rtol=1e-6)
  assert value > 0
  assert np.all(np.isfinite(gradient))

  (value, without), gradient = run(jnp.asarray(similarity), jnp.ones((IMAGES, TEXTS), bool))
  assert value == 0
  assert without == IMAGES + TEXTS
  assert gradient.shape == (IMAGES, TEXTS)
  assert not np.any(gradient)


def test_permuted_batch_permutes_the_gradient():
  # Below 0.875 no distance is raised to 0.5, so no two weights are equal and the heaviest does not depend on the order.
  similarity, is_positive = 0.85 * some_cosines(dtype=np.float32), some_positives()
  images, texts = np.array([3, 0, 4, 1, 2]), np.random.default_rng(5).permutation(TEXTS)
  loss_and_gradient = jax.jit(jax.value_and_grad(lambda x, positive: distance_weighted_loss(x, positive, None).loss))
  loss, gradient = loss_and_gradient(jnp.asarray(similarity), jnp.asarray(is_positive))
  shuffled = (jnp.asarray(x[images][:, texts]) for x in (similarity, is_positive))
  shuffled_loss, shuffled_gradient = loss_and_gradient(*shuffled)
  assert_close(shuffled_loss, loss, rtol=1e-6)
  assert_close(shuffled_gradient, gradient[images][:, texts], atol=1e-6)


def test_identical_and_opposite_embeddings_are_finite_forward_and_backward():
  images = jnp.asarray(np.repeat([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], [3, 2], axis=0), jnp.float32)
  texts = jnp.asarray(np.repeat([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], [4, 7], axis=0), jnp.float32)

  def loss(images, texts):
    similarity = cosine_similarity(images, texts)
    return distance_weighted_loss(similarity, jnp.asarray(some_positives()), None).loss

  value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(images, texts)
  assert np.isfinite(value)
  assert value > 0
  for gradient in gradients:
    assert np.all(np.isfinite(gradient))


def test_losses_are_the_same_without_jit():
  similarity, is_positive = jnp.asarray(some_cosines(dtype=np.float32)), jnp.asarray(some_positives())
  arguments = similarity, is_positive, None
  for found, expected in zip(distance_weighted_loss(*arguments), compiled_distance_weighted(*arguments), strict=True):
    assert_close(found, expected, rtol=1e-6)
  similarity, is_positive = jnp.asarray(some_cosines(PAIRS, PAIRS, dtype=np.float32)), jnp.asarray(paired_positives())
  for found, expected in zip(hinge_loss(similarity, is_positive), compiled_hinge(similarity, is_positive), strict=True):
    assert_close(found, expected, rtol=1e-6)


# --- regulariser ------------------------------------------------------------------------------------------------------


def some_relevance(dtype=np.float64):
  rng = np.random.default_rng(6)
  relevance = rng.normal(size=(IMAGES, TEXTS)).astype(dtype)
  affinity = oracle.gaussian_affinity(rng.normal(size=(IMAGES, SIZE)), rng.normal(size=(TEXTS, SIZE))).astype(dtype)
  return relevance, affinity


def test_relation_loss_equals_the_oracle(dtype):
  relevance, affinity = some_relevance(dtype)
  expected = oracle.relation_loss(relevance, affinity)
  found = compiled_relation(jnp.asarray(relevance), jnp.asarray(affinity))
  assert found.dtype == dtype
  assert_close(found, expected, rtol=TOLERANCE[dtype])


@pytest.mark.usefixtures('x64')
def test_gradient_of_relation_loss_equals_finite_differences_and_none_flows_to_the_affinity():
  relevance, affinity = some_relevance()
  found = jax.jit(jax.grad(relation_loss, argnums=(0, 1)))(jnp.asarray(relevance), jnp.asarray(affinity))
  expected = oracle.numerical_gradient(lambda x: oracle.relation_loss(x, affinity), relevance)
  assert_close(found[0], expected, atol=GRADIENT_TOLERANCE)
  assert_close(found[1], np.zeros((IMAGES, TEXTS)))


def test_relation_loss_is_zero_only_for_equal_distributions_and_never_negative():
  relevance, affinity = (jnp.asarray(x) for x in some_relevance(np.float32))
  shift = jnp.arange(IMAGES, dtype=jnp.float32)[:, None]  # of a whole row: the softmax does not see it
  assert_close(compiled_relation(affinity + shift, affinity), 0.0, atol=1e-6)
  assert compiled_relation(relevance, affinity) > 0.1


def test_relation_loss_of_enormous_relevance_is_finite_forward_and_backward():
  relevance, affinity = (jnp.asarray(x) for x in some_relevance(np.float32))
  value, gradient = jax.jit(jax.value_and_grad(relation_loss))(1e6 * relevance, affinity)
  assert np.isfinite(value)
  assert value > 0
  assert np.all(np.isfinite(gradient))


def test_permuted_rows_and_columns_leave_the_relation_loss():
  relevance, affinity = some_relevance(np.float32)
  images, texts = np.array([3, 0, 4, 1, 2]), np.random.default_rng(5).permutation(TEXTS)
  shuffled = (jnp.asarray(x[images][:, texts]) for x in (relevance, affinity))
  assert_close(
    compiled_relation(*shuffled), compiled_relation(jnp.asarray(relevance), jnp.asarray(affinity)), rtol=1e-5
  )
